//! `cargo xtask docs`: pages that are put together from the modules they describe.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace;

/// Pages and what each is made from.
const PAGES: &[(&str, &str)] = &[("docs/format.in.md", "docs/format.md")];

/// What stands at the head of a page that was made.
const NOTE: &str = "<!-- Made by `cargo xtask docs` from ";

/// What to do.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Options {
    /// Write nothing; fail when a page is not what it would be.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Makes the pages, or checks them.
pub(crate) fn docs(options: Options) -> Result<()> {
    let root = workspace::root();
    for (template, page) in PAGES {
        let template_text = read(&root.join(template))?;
        let made = format!("{NOTE}{template}: change that, or the modules it names. -->\n\n")
            + &expand(&template_text, &|file| read(&root.join(file)))?;
        let path = root.join(page);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == made) {
            continue;
        }
        if options.check {
            bail!("{page} is behind the source: run `cargo xtask docs`");
        }
        std::fs::write(&path, made).with_context(|| format!("can't write {page}"))?;
        println!("{page} was made anew");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

/// Puts the module text of each file in the place of the line `{{file}}`.
fn expand(template: &str, read: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let mut page = String::new();
    for line in template.lines() {
        match line.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) {
            Some(file) => {
                let text = module_text(&read(file)?);
                if text.trim().is_empty() {
                    bail!("{file} has no module text for the page");
                }
                page.push_str(text.trim_end());
            }
            None => page.push_str(line),
        }
        page.push('\n');
    }
    Ok(page)
}

/// The text of a module's `//!` lines, its headings two levels lower and its links to code as
/// plain code.
fn module_text(source: &str) -> String {
    let mut text = String::new();
    let mut fenced = false;
    for line in source.lines().filter_map(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            text.push_str("##");
        }
        let line = if fenced { line.to_owned() } else { unlink(line) };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Turns [`crate::a::B`] and [`B`](crate::a::B) into `a::B` and `B`.
fn unlink(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((code, behind)) = after.split_once("`]") else { break };
        out.push_str(before);
        let code =
            ["crate::", "super::", "self::"].iter().fold(code, |c, p| c.trim_start_matches(p));
        out.push_str(&format!("`{code}`"));
        rest = match behind.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, behind)) => behind,
            None => behind,
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_module_becomes_part_of_the_page() {
        let source = "//! Packs, see [`crate::seal`] and [`Node`](crate::node::Node) (`x`).\n//!\n\
                      //! # Frames\n//! ```text\n//! # [`kept`]\n//! ```\n\nfn f() {}\n// no\n";
        let page = expand("# Format\n{{a.rs}}\nend\n", &|_| Ok(source.to_owned()));
        let expected = "# Format\nPacks, see `seal` and `Node` (`x`).\n\n### Frames\n```text\n\
                        # [`kept`]\n```\nend\n";
        assert_eq!(page.unwrap_or_default(), expected);
    }

    #[test]
    fn a_module_without_text_is_refused() {
        assert!(expand("{{a.rs}}\n", &|_| Ok("fn f() {}\n".to_owned())).is_err());
    }
}
