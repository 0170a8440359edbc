//! The Containerfile, as far as it can be judged without building it: what it copies is there, what
//! it runs is what the program takes, and it neither runs as root nor holds a secret.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The instructions, each with its words; continued lines are one.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("{ROOT}/packaging/Containerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let whole = lines.replace("\\\n", " ");
    let parts = whole.lines().filter_map(|line| line.split_once(' '));
    parts.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

/// The words of an instruction that is a JSON list.
fn list(name: &str) -> Vec<String> {
    let all = instructions();
    let (_, text) = all.iter().find(|(instruction, _)| instruction == name).unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_copied_is_there_and_let_into_the_build() {
    let ignored = fs::read_to_string(format!("{ROOT}/.containerignore")).unwrap();
    let mut copied = 0;
    for (name, rest) in instructions() {
        if name != "COPY" || rest.starts_with("--from=") {
            continue;
        }
        let words: Vec<_> = rest.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(Path::new(ROOT).join(source).exists(), "{source} is not there");
            assert!(
                ignored.lines().any(|line| line == format!("!{source}")),
                "{source} is left out"
            );
            copied += 1;
        }
    }
    assert!(copied > 3);
    let let_in = ignored.lines().filter(|line| line.starts_with('!')).count();
    assert_eq!(let_in, copied, ".containerignore lets in what is not copied");
}

#[test]
fn it_does_what_the_service_does_as_nobody_special() {
    let unit = fs::read_to_string(format!("{ROOT}/packaging/systemd/strongroom.service")).unwrap();
    let (_, line) = unit.split_once("\nExecStart=").unwrap();
    let line: Vec<_> = line.lines().next().unwrap().split(' ').collect();
    let mut runs = list("ENTRYPOINT");
    runs.extend(list("CMD"));
    let at = runs.iter().position(|word| word == "--listen").unwrap();
    runs.drain(at..at + 2);
    assert_eq!(runs, line, "beside where it listens, which in a container must be everywhere");

    let all = instructions();
    let last = |name: &str| all.iter().rposition(|(instruction, _)| instruction == name).unwrap();
    assert!(last("USER") > last("FROM") && all[last("USER")].1 == "strongroom");
    assert_eq!(all[last("VOLUME")].1, "/var/lib/strongroom");
    assert!(all[last("HEALTHCHECK")].1.contains("/readyz"));
    for (name, rest) in &all {
        let secret = ["PASSPHRASE", "PASSWORD", "SECRET=", "TOKEN"];
        assert!(!secret.iter().any(|word| rest.to_uppercase().contains(word)), "{name} {rest}");
        assert!(name != "ENV" && name != "ARG", "{name} stays in the image's layers");
    }
}
