//! Users, roles, rights, organisations, keys, sessions, tokens, audit; who may do what.
