//! Jobs: what is done, by whom it was asked, and how far it is.
