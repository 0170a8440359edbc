//! A PostgreSQL server for tests.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The environment variable with the URL of a server on which tests may make databases. Without
/// it each process that needs a server starts its own.
pub const SERVER: &str = "STRONGROOM_TEST_POSTGRES";

/// Where distributions put the server's programs, newest last.
const PLACES: &[&str] = &["/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql", "/usr"];

/// All of a server's life. It ends, and its directory with it, when standard input does: that is
/// when the process which started it ends, however it ends. The arguments are the directory, the
/// programs', and the user for whom the server runs, for it refuses to run for root.
const LIFE: &str = r#"
set -eu
dir=$1 bin=$2 user=$3
as() {
    if [ -n "$user" ]; then
        setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"
    else
        "$@"
    fi
}
end() {
    as "$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap end EXIT
[ -z "$user" ] || chown "$user" "$dir"
cd "$dir"
as "$bin/initdb" -D "$dir/data" -U strongroom --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
    --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
cat >>"$dir/data/postgresql.conf" <<CONF
unix_socket_directories = '$dir'
listen_addresses = ''
max_connections = 600
fsync = off
synchronous_commit = off
full_page_writes = off
CONF
as "$bin/pg_ctl" start -D "$dir/data" -w -t 120 -l "$dir/data/log" >/dev/null 2>&1 \
    || { cat "$dir/data/log" >&2; exit 1; }
echo ready
cat >/dev/null
"#;

/// A running server, which ends when this is dropped or the process ends.
#[derive(Debug)]
pub struct Server {
    url: String,
    life: Child,
}

impl Server {
    /// The URL of the server for this process's tests; it is started when there is none yet.
    ///
    /// # Panics
    /// When there can't be one; the text says what to install.
    pub fn url() -> &'static str {
        static GIVEN: OnceLock<Option<String>> = OnceLock::new();
        static OWN: OnceLock<Server> = OnceLock::new();
        let given = GIVEN.get_or_init(|| std::env::var(SERVER).ok().filter(|url| !url.is_empty()));
        given.as_deref().unwrap_or_else(|| &OWN.get_or_init(Self::start).url)
    }

    /// Starts a server in a directory of its own. It syncs nothing, and listens on a Unix socket
    /// in that directory only.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start() -> Self {
        let bin = programs().unwrap_or_else(|| {
            panic!("tests need PostgreSQL: install Debian's package postgresql, or set {SERVER}")
        });
        let dir = tempfile::Builder::new().prefix("strongroom-pg-").tempdir();
        // From here on it is the shell's to remove.
        let dir = dir.expect("tests have a temporary directory").keep();
        let mut life = Command::new("sh");
        life.args(["-c", LIFE, "sh"]).arg(&dir).arg(&bin).arg(user());
        // Not in the terminal's group: an interrupt ends the tests, and these then the server.
        life.process_group(0);
        life.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut life = life.spawn().expect("there is a shell");
        let mut said = String::new();
        let out = life.stdout.take().expect("standard output is piped");
        let heard = BufReader::new(out).read_line(&mut said);
        let mut err = life.stderr.take().expect("standard error is piped");
        if heard.is_err() || said.trim() != "ready" {
            let mut why = String::new();
            let _ = err.read_to_string(&mut why);
            panic!("PostgreSQL can't be started with {}: {why}", bin.display());
        }
        let url = format!("postgres://strongroom@localhost/postgres?host={}", dir.display());
        Self { url, life }
    }

    /// Where it is reached; the database of that URL is empty and should stay so.
    pub fn address(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.life.stdin.take());
        let _ = self.life.wait();
    }
}

/// The same server's URL for another database.
pub(super) fn with_database(url: &str, name: &str) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, query)) => (url, format!("?{query}")),
        None => (url, String::new()),
    };
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let host_end = url[scheme..].find('/').map_or(url.len(), |at| scheme + at);
    format!("{}/{name}{query}", &url[..host_end])
}

/// Where the newest server's programs are.
fn programs() -> Option<PathBuf> {
    let versions = PLACES.iter().flat_map(|place| {
        let mut dirs: Vec<(u32, PathBuf)> = std::fs::read_dir(place)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
            })
            .collect();
        dirs.sort();
        dirs.into_iter().rev().map(|(_, dir)| dir).chain([Path::new(place).join("bin")])
    });
    let mut versions = versions;
    versions.find(|dir| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file())
}

/// For whom the server runs: nobody else, unless this is root.
fn user() -> &'static str {
    let is_root = std::fs::metadata("/proc/self")
        .is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    if !is_root {
        return "";
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server() {
        assert_eq!(
            with_database("postgres://u:p@h:1/a?host=/x/y", "b"),
            "postgres://u:p@h:1/b?host=/x/y"
        );
        assert_eq!(with_database("postgres://h", "b"), "postgres://h/b");
        assert_eq!(with_database("postgres:///a", "b"), "postgres:///b");
    }

    #[test]
    fn a_server_ends_with_its_owner() {
        let server = Server::start();
        let dir = server.address().rsplit_once('=').map(|(_, dir)| PathBuf::from(dir));
        let dir = dir.expect("the URL names its directory");
        assert!(dir.join("data").is_dir());
        drop(server);
        assert!(!dir.exists());
    }
}
