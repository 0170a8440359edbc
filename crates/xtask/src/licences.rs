//! The licences of the crates that the program is made of, as they go with it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;

use crate::parts;

/// Whether a file of that name holds a licence or a notice.
fn is_licence(name: &str) -> bool {
    const BEGINNINGS: [&str; 6] =
        ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
    let name = name.to_ascii_uppercase();
    BEGINNINGS.iter().any(|word| name.starts_with(word)) && !name.ends_with(".RS")
}

/// All crates with their licences, then each text once, with the crates that it came with.
pub(crate) fn texts() -> Result<String> {
    let mut list = String::from("Strongroom holds code of these, under these licences:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in parts::parts()? {
        let name = format!("{} {}", part.name, part.version);
        list += &format!("  {name}: {}\n", part.licence);
        for entry in fs::read_dir(&part.directory)? {
            let entry = entry?;
            if is_licence(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
                let text = fs::read(entry.path())?;
                let text = String::from_utf8_lossy(&text).replace('\r', "").trim().to_owned();
                texts.entry(text).or_default().push(name.clone());
            }
        }
    }
    let line = "-".repeat(78);
    for (text, names) in texts {
        list += &format!("\n\n{line}\nThis came with {}:\n\n{text}\n", names.join(", "));
    }
    Ok(list)
}
