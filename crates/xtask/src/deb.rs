//! `cargo xtask deb`: the Debian package, made with Debian's own tools.
//!
//! Everything about it that isn't computed lies in `packaging/`. It is made in `target/deb/`, and
//! is the same, byte by byte, when it is made again of the same commit.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{licences, packages, run, workspace};

/// How to make the package.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How to build the program; `dev` packs the one that tests use, quickly.
    #[arg(long, default_value = "release", value_parser = ["release", "dev"])]
    profile: String,
}

/// Makes the package, and prints its path as the last line.
pub(crate) fn deb(options: &Options) -> Result<()> {
    packages::ensure(packages::FOR_DEB)?;
    let dev = options.profile == "dev";
    let mut build = workspace::cargo();
    // What tests use is not built anew for this.
    if let Some(commit) = commit().filter(|_| !dev) {
        build.env("STRONGROOM_COMMIT", commit);
        build.env("SOURCE_DATE_EPOCH", commit_time()?.to_string());
    }
    run::run(build.args(["build", "--package", "strongroom", "--profile", &options.profile]))?;
    let target = workspace::target_dir()?;
    let binary = target.join(if dev { "debug" } else { "release" }).join("strongroom");

    let architecture = run::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let version = version()?;
    let name = format!("strongroom_{version}_{}", architecture.trim());
    let work = target.join("deb");
    let tree = Tree::new(work.join(&name))?;
    program(&tree, &binary)?;
    documentation(&tree, &binary, &version)?;
    service(&tree)?;
    control(&tree, &version, architecture.trim(), &work)?;

    let package = work.join(format!("{name}.deb"));
    let mut dpkg_deb = Command::new("dpkg-deb");
    let packed: &[&str] = if dev { &["-Zgzip", "-z1"] } else { &["-Zxz"] };
    dpkg_deb.arg("--root-owner-group").args(packed).arg("--build");
    dpkg_deb.arg(&tree.top).arg(&package).env("SOURCE_DATE_EPOCH", commit_time()?.to_string());
    run::run(&mut dpkg_deb)?;
    fs::remove_dir_all(&tree.top)?;
    println!("{}", package.display());
    Ok(())
}

/// The version of the program, and 1 for that of its package.
fn version() -> Result<String> {
    let metadata = workspace::metadata(false)?;
    let mut crates = metadata["packages"].as_array().into_iter().flatten();
    let version = crates.find(|c| c["name"] == "strongroom").and_then(|c| c["version"].as_str());
    Ok(format!("{}-1", version.context("cargo metadata lists no strongroom")?))
}

/// Seconds since 1970 of the last commit; of now where there is none.
fn commit_time() -> Result<u64> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]);
    match run::capture(&mut git) {
        Ok(text) => Ok(text.trim().parse()?),
        Err(_) => Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs()),
    }
}

/// The commit that the source is; None where there is none, or something was changed since.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        run::capture(git.current_dir(workspace::root()).args(args)).ok()
    };
    let changes = git(&["status", "--porcelain"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    changes.is_empty().then(|| commit.trim().to_owned())
}

/// The files as they will lie below `/`.
struct Tree {
    top: PathBuf,
}

impl Tree {
    fn new(top: PathBuf) -> Result<Self> {
        if top.exists() {
            fs::remove_dir_all(&top)?;
        }
        fs::create_dir_all(&top)?;
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755))?;
        Ok(Self { top })
    }

    /// Makes the directories above a file, and gives its place.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let mut dir = self.top.clone();
        let mut names = path.split('/').collect::<Vec<_>>();
        let file = names.pop().context("a path has a name")?;
        for name in names {
            dir.push(name);
            if !dir.exists() {
                fs::create_dir(&dir)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(dir.join(file))
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, content).with_context(|| format!("writing {}", place.display()))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// As gzip packs it, without a time.
    fn write_gzip(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut gzip = Command::new("gzip");
        gzip.args(["-9", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = gzip.spawn().context("can't start gzip")?;
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        let packed = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(content));
            child.wait_with_output()
        })?;
        if !packed.status.success() {
            bail!("gzip failed: {}", packed.status);
        }
        self.write(path, packed.stdout, 0o644)
    }
}

/// A file of `packaging/`.
fn packaging(path: &str) -> Result<String> {
    let path = workspace::root().join("packaging").join(path);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn program(tree: &Tree, binary: &Path) -> Result<()> {
    let place = tree.place("usr/bin/strongroom")?;
    let mut strip = Command::new("strip");
    strip.args(["--strip-unneeded", "--remove-section=.comment", "-o"]);
    run::run(strip.arg(&place).arg(binary))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/strongroom"),
        ("zsh", "usr/share/zsh/vendor-completions/_strongroom"),
        ("fish", "usr/share/fish/vendor_completions.d/strongroom.fish"),
    ] {
        let script = run::capture(Command::new(binary).args(["completions", shell]))?;
        tree.write(path, script, 0o644)?;
    }
    Ok(())
}

fn documentation(tree: &Tree, binary: &Path, version: &str) -> Result<()> {
    const DOC: &str = "usr/share/doc/strongroom";
    let pages = tree.top.with_extension("man");
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    run::run(Command::new(binary).arg("manual").arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        let page = page?;
        let name = page.file_name();
        let name = name.to_str().context("the names of pages are text")?;
        tree.write_gzip(&format!("usr/share/man/man1/{name}.gz"), &fs::read(page.path())?)?;
    }
    fs::remove_dir_all(&pages)?;

    let root = workspace::root();
    tree.write(&format!("{DOC}/copyright"), packaging("debian/copyright")?, 0o644)?;
    tree.write_gzip(&format!("{DOC}/changelog.gz"), &fs::read(root.join("CHANGELOG.md"))?)?;
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", "--date", &format!("@{}", commit_time()?)]);
    let changelog = packaging("debian/changelog")?.replace("@VERSION@", version);
    let changelog = changelog.replace("@DATE@", run::capture(&mut date)?.trim());
    tree.write_gzip(&format!("{DOC}/changelog.Debian.gz"), changelog.as_bytes())?;
    tree.write_gzip(&format!("{DOC}/third-party-licences.gz"), licences::texts()?.as_bytes())?;
    let config = root.join("crates/strongroom/src/up/strongroom.toml");
    tree.write(&format!("{DOC}/examples/strongroom.toml"), fs::read(config)?, 0o644)?;
    let drop_ins = [
        "attach-storage",
        "backup-this-machine",
        "change-the-network",
        "pools-elsewhere",
        "restore-to-this-machine",
    ];
    for name in drop_ins {
        let text = packaging(&format!("systemd/{name}.conf"))?;
        tree.write(&format!("{DOC}/examples/{name}.conf"), text, 0o644)?;
    }
    Ok(())
}

fn service(tree: &Tree) -> Result<()> {
    let unit = packaging("systemd/strongroom.service")?;
    tree.write("lib/systemd/system/strongroom.service", unit, 0o644)
}

/// What the package manager reads and runs.
fn control(tree: &Tree, version: &str, architecture: &str, work: &Path) -> Result<()> {
    let depends = libraries(tree, work)?;
    let size = run::capture(Command::new("du").args(["-s", "-k"]).arg(&tree.top))?;
    let size = size.split_whitespace().next().context("du says how much")?;
    let mut control = packaging("debian/control")?;
    for (name, value) in [
        ("@VERSION@", version),
        ("@ARCHITECTURE@", architecture),
        ("@SIZE@", size),
        ("@DEPENDS@", &depends),
    ] {
        control = control.replace(name, value);
    }
    let mut sums = Command::new("sh");
    let find = "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | sort -z | xargs -0 md5sum";
    let sums = run::capture(sums.current_dir(&tree.top).args(["-c", find]))?;
    tree.write("DEBIAN/control", control, 0o644)?;
    tree.write("DEBIAN/md5sums", sums, 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.write(&format!("DEBIAN/{script}"), packaging(&format!("debian/{script}"))?, 0o755)?;
    }
    Ok(())
}

/// The packages with the libraries that the program is linked to, in the versions that it needs.
fn libraries(tree: &Tree, work: &Path) -> Result<String> {
    // The tool wants to stand in the source of a package.
    let source = work.join("source");
    fs::create_dir_all(source.join("debian"))?;
    let control = "Source: strongroom\n\nPackage: strongroom\nArchitecture: any\n";
    fs::write(source.join("debian/control"), control)?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps.current_dir(&source).args(["-O", "-e"]).arg(tree.top.join("usr/bin/strongroom"));
    let found = run::capture(&mut shlibdeps)?;
    fs::remove_dir_all(&source)?;
    let depends = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).context("dpkg-shlibdeps found no libraries")
}
