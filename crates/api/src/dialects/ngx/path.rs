//! Which endpoints a path leads to: words win over what stands in braces, so `list` is never an id.

/// Whether a path is that of an endpoint, and what stands in its braces.
pub(super) fn matched(pattern: &str, path: &str) -> Option<Option<String>> {
    let mut found = None;
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(word), Some(part)) if word == part => {}
            (Some(word), Some(part)) if word.starts_with('{') && !part.is_empty() => {
                found = Some(part.to_owned());
            }
            _ => return None,
        }
    }
}

/// How many words of a pattern stand for themselves.
pub(super) fn words(pattern: &str) -> usize {
    pattern.split('/').filter(|part| !part.starts_with('{')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_braces_is_found() {
        let id = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(matched("/lun/{id}", "/lun/5"), id("5"));
        assert_eq!(matched("/lun/{id}", "/lun/list"), id("list"));
        assert!(words("/lun/list") > words("/lun/{id}"));
        assert_eq!(matched("/lun", "/lun"), Some(None));
        assert_eq!(matched("/snapshot/clone/{id}", "/snapshot/clone/5"), id("5"));
        for (pattern, path) in [
            ("/lun/{id}", "/lun/"),
            ("/lun/{id}", "/lun"),
            ("/lun/{id}", "/lun/5/6"),
            ("/lun", "/"),
        ] {
            assert_eq!(matched(pattern, path), None, "{pattern} {path}");
        }
    }
}
