//! What stands in the places of filters and names of entries, so that nothing but itself is meant.

use std::borrow::Cow;

/// Where the name goes that the user typed.
pub(super) const NAME: &str = "{name}";
/// Where the name of the user's entry goes.
const DN: &str = "{dn}";

/// A filter (RFC 4515) with its places filled.
pub(super) fn in_filter(filter: &str, name: &str, dn: &str) -> String {
    fill(filter, &[(NAME, &ldap3::ldap_escape(name)), (DN, &ldap3::ldap_escape(dn))])
}

/// What to log in as, of a template: the name of an entry (RFC 4514), or something else that the
/// server takes, as `name@domain`.
pub(super) fn in_template(template: &str, name: &str) -> String {
    let name: Cow<'_, str> =
        if template.contains('=') { ldap3::dn_escape(name) } else { name.into() };
    fill(template, &[(NAME, &name)])
}

/// Fills all places at once: what one is filled with is never looked at again.
fn fill(text: &str, places: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        match places.iter().find(|(place, _)| rest.starts_with(place)) {
            Some((place, value)) => {
                out.push_str(value);
                rest = &rest[place.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The name of an entry as names are compared: in small letters, and without the spaces around the
/// commas and equal signs between its parts.
pub(super) fn fold_dn(dn: &str) -> String {
    let mut out = String::with_capacity(dn.len());
    let mut spaces = 0;
    let mut escaped = false;
    for c in dn.trim().chars().flat_map(char::to_lowercase) {
        let parts = !escaped && matches!(c, ',' | '=' | '+');
        match c {
            ' ' if !escaped => {
                spaces += 1;
                continue;
            }
            _ if parts => spaces = 0,
            _ => {}
        }
        let after = out.chars().next_back().is_none_or(|last| matches!(last, ',' | '=' | '+'));
        if !after || ends_escaped(&out) {
            out.extend(std::iter::repeat_n(' ', spaces));
        }
        spaces = 0;
        out.push(c);
        escaped = !escaped && c == '\\';
    }
    out
}

/// Whether the last character is what follows a backslash.
fn ends_escaped(text: &str) -> bool {
    let slashes = text.chars().rev().skip(1).take_while(|c| *c == '\\').count();
    slashes % 2 == 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ldap3::asn1::{PL, StructureTag, Tag};
    use proptest::prelude::*;

    use super::*;

    /// The value of a filter that is one comparison.
    fn compared(filter: &str) -> (u64, Vec<u8>, Vec<u8>) {
        let tag = ldap3::parse_filter(filter).unwrap();
        let StructureTag { id, payload, .. } = tag_of(tag);
        let PL::C(parts) = payload else { panic!("{filter} is not one comparison") };
        let text = |tag: &StructureTag| match &tag.payload {
            PL::P(bytes) => bytes.clone(),
            PL::C(_) => panic!("{filter} has parts"),
        };
        assert_eq!(parts.len(), 2, "{filter}");
        (id, text(&parts[0]), text(&parts[1]))
    }

    fn tag_of(tag: Tag) -> StructureTag {
        use ldap3::asn1::ASNTag;
        tag.into_structure()
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_compared_with_and_nothing_else(name in any::<String>()) {
            let (kind, attribute, value) = compared(&in_filter("(uid={name})", &name, ""));
            // An equality match, not a search for parts or presence.
            prop_assert_eq!(kind, 3);
            prop_assert_eq!(attribute, b"uid");
            prop_assert_eq!(value, name.into_bytes());
        }

        #[test]
        fn typed_places_are_not_filled(name in "[{}a-z()*\\\\]{0,24}", dn in "[{}a-z=,]{0,24}") {
            let filter = in_filter("(&(uid={name})(member={dn}))", &name, &dn);
            let StructureTag { payload, .. } = tag_of(ldap3::parse_filter(&filter).unwrap());
            let PL::C(parts) = payload else { panic!("{filter}") };
            prop_assert_eq!(parts.len(), 2);
        }

        #[test]
        fn in_the_name_of_an_entry_it_is_one_value(name in "[ -~]{1,24}") {
            let dn = in_template("uid={name},ou=people", &name);
            // Every comma, plus and equal sign of what was typed is escaped.
            let mut escaped = false;
            let mut parts = 0;
            for c in dn.chars() {
                if !escaped && matches!(c, ',' | '+') {
                    parts += 1;
                }
                escaped = !escaped && c == '\\';
            }
            prop_assert_eq!(parts, 1, "{}", dn);
        }

        #[test]
        fn folding_is_done_once(dn in "[ a-zA-Z=,+\\\\]{0,24}") {
            let once = fold_dn(&dn);
            prop_assert_eq!(fold_dn(&once), once);
        }
    }

    #[test]
    fn a_template_of_a_domain_is_filled_as_it_is() {
        assert_eq!(in_template("{name}@corp.example", "jo"), "jo@corp.example");
        assert_eq!(in_template("uid={name},dc=x", "a,b"), "uid=a\\2cb,dc=x");
    }

    #[test]
    fn names_of_entries_are_the_same_however_they_are_written() {
        let folded = "cn=backup admins,ou=groups,dc=corp,dc=example";
        for dn in [
            "CN=Backup Admins,OU=Groups,DC=Corp,DC=Example",
            "cn = backup admins , ou=groups,dc=corp,  dc=example ",
        ] {
            assert_eq!(fold_dn(dn), folded);
        }
        assert_ne!(fold_dn("cn=backup admins,dc=x"), fold_dn("cn=backupadmins,dc=x"));
        assert_ne!(fold_dn("cn=a\\,b,dc=x"), fold_dn("cn=a,b,dc=x"));
    }
}
