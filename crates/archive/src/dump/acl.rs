//! POSIX access control lists: from the kernel's attribute to the text of acl(5).

/// The text of an ACL (POSIX.1e draft 17, short form with numeric ids), from the value of the
/// attribute `system.posix_acl_access` or `_default` (Linux, `posix_acl_xattr.h`: version 2, then
/// tag, permissions and id of each entry, little-endian). None for what isn't one.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 || entries.is_empty() {
        return None;
    }
    let mut lines = Vec::with_capacity(entries.len() / 8);
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |mask: u16, letter: char| if bits & mask == 0 { '-' } else { letter };
        lines.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(lines.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_acl_reads_as_getfacl_shows_it() {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in
            [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 0, 0)]
        {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let expected = "user::rw-,user:1000:r--,group::r-x,mask::r-x,other::---";
        assert_eq!(text(&value).unwrap(), expected);
        for broken in [&value[..3], &value[..4], &value[..9], &[]] {
            assert_eq!(text(broken), None);
        }
    }
}
