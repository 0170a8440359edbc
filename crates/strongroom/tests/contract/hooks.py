"""What schemathesis is held to when it asks an appliance that is real.

Two things. Half of the time it says what makes sense there: numbers of things that are there, names
and paths that can be; or it would seldom get past "there is no such thing". And it stays in its
playground: paths of the machine are put below one directory, and what would end the run itself (the
caller's own user and key, the pool that all else needs) is left alone.
"""

import json
import os
import posixpath
import zlib

import schemathesis

# Paths of the machine are put below this directory, which holds `source`.
PLAYGROUND = os.environ["STRONGROOM_PLAYGROUND"]
# Numbers that are there, by the name of the thing; the first of each is what may be spared.
KNOWN = json.loads(os.environ["STRONGROOM_KNOWN"])
# What may not be done to the first.
SPARING = {
    "users.change", "users.remove", "users.password", "users.revoke", "users.second_factor.remove",
    "keys.change", "keys.remove", "pools.remove", "pools.rename", "images.forget",
}
# Servers that the appliance would ask: nobody is there.
NOBODY = {
    "url": "ldaps://127.0.0.1:9",
    "issuer": "https://127.0.0.1:9",
    "jwks_url": "https://127.0.0.1:9",
}
OF_WHAT = {"parent_id": "organisation", "delegate_of": "user", "with": "image", "pools": "pool"}


class Sense:
    """Chooses, always the same way for the same request."""

    def __init__(self, case):
        self.operation = case.operation.definition.raw["operationId"]
        asked = (self.operation, case.path_parameters, case.body, case.query)
        self.state = zlib.crc32(repr(asked).encode())

    def choose(self, choices):
        self.state = zlib.crc32(self.state.to_bytes(4, "big"))
        return choices[self.state % len(choices)]

    def number(self, name, value):
        """The number of something that is there, in place of one that is well-formed."""
        known = KNOWN.get(OF_WHAT.get(name, name.removesuffix("_id")))
        if not known:
            return value
        if self.operation in SPARING:
            spared, *known = known
            if str(value) == str(spared):
                return known[0]
        if type(value) is not int or not -(2**63) <= value < 2**63:
            return value
        return self.choose([*known, *known, value])

    def value(self, name, value):
        """Of a body: something that can be, in place of something of the same kind."""
        if isinstance(value, dict):
            return {inner: self.value(inner, item) for inner, item in value.items()}
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            return [self.value(name, item) for item in value]
        if name in NOBODY and isinstance(value, str):
            return NOBODY[name]
        if name.endswith("_id") or name in OF_WHAT and type(value) is int:
            return self.number(name, value)
        if name == "pools" and isinstance(value, list):
            return [self.number(name, item) for item in value]
        if name == "operations" and self.operation == "settings.approvals":
            # Else all that needs a second administrator would wait for one from here on.
            return [] if isinstance(value, list) else value
        if name == "classes" and self.operation == "settings.approvals":
            return []
        if not self.choose([True, False]):
            return in_playground(value)
        fresh = f"n{self.state % 1000}"
        if isinstance(value, str):
            if name == "name" and self.operation != "sessions.open":
                return fresh
            if name in ("password", "new", "passphrase"):
                return f"correct horse {fresh}"
            if name in ("path", "disk"):
                return f"{PLAYGROUND}/pools/{fresh}"
            if name == "until":
                return "2099-01-01T00:00:00Z"
            if name == "to":
                return f"{PLAYGROUND}/back"
            if name == "from":
                return PLAYGROUND + "/source"
        if name == "paths" and isinstance(value, list) and self.operation == "backups.start":
            return [f"{PLAYGROUND}/source"]
        if name in ("disks", "paths", "include", "exclude", "excludes") and isinstance(value, list):
            return []
        if name in ("rights", "operations") and isinstance(value, list):
            return self.choose([[], ["image.view"], ["job.view", "pool.view"]])
        if name in ("block", "layout"):
            return None
        return in_playground(value)


def in_playground(value):
    """The same, with paths of the machine below the playground."""
    if isinstance(value, str) and value.startswith("/"):
        return PLAYGROUND + posixpath.normpath("/" + value.lstrip("/"))
    if isinstance(value, list):
        return [in_playground(item) for item in value]
    if isinstance(value, dict):
        return {name: in_playground(item) for name, item in value.items()}
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    sense = Sense(case)
    # No case signs itself: with a signature that was made up beside the key it would be nobody.
    for name in ("Signature", "Signature-Input"):
        if case.headers and name in case.headers:
            del case.headers[name]
    for name, value in (case.path_parameters or {}).items():
        case.path_parameters[name] = sense.number(name, value)
    for name, value in (case.query or {}).items():
        if name.endswith("_id") or name == "with":
            case.query[name] = sense.number(name, value)
        elif name == "path" and isinstance(value, str) and sense.choose([True, False]):
            case.query[name] = PLAYGROUND + sense.choose(["/source", "/source/file"])
    if isinstance(case.body, dict):
        case.body = {name: sense.value(name, value) for name, value in case.body.items()}
    elif isinstance(case.body, (list, str)):
        case.body = in_playground(case.body)
