//! A real OpenLDAP server of a test's own: fresh, on this machine alone, ended with the test.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use strongroom_identity::DirectorySettings;

pub(crate) const BASE: &str = "dc=corp,dc=example";
/// As whom the appliance looks for users, and with what.
pub(crate) const READER: &str = "cn=reader,dc=corp,dc=example";
pub(crate) const SECRET: &str = "the reader's secret";
const ROOT: &str = "cn=root,dc=corp,dc=example";
const ROOT_SECRET: &str = "root";
/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(20);

/// Two people, and two groups with one of them each.
const ENTRIES: &str = "\
dn: dc=corp,dc=example
objectClass: dcObject
objectClass: organization
o: Corp
dc: corp

dn: cn=reader,dc=corp,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: the reader's secret

dn: ou=people,dc=corp,dc=example
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=corp,dc=example
objectClass: organizationalUnit
ou: groups

dn: uid=jo,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: jo
cn: Jo Doe
sn: Doe
mail: jo@corp.example
userPassword: jo's password

dn: uid=mo,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: mo
cn: Mo Moe
sn: Moe
userPassword: mo's password

dn: uid=a\\2cb(*)\\5c,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: a,b(*)\\
cn: Odd
sn: Odd
userPassword: odd's password

dn: cn=Backup Admins,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: Backup Admins
member: uid=jo,ou=people,dc=corp,dc=example

dn: cn=viewers,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: viewers
member: uid=mo,ou=people,dc=corp,dc=example
member: uid=a\\2cb(*)\\5c,ou=people,dc=corp,dc=example
";

pub(crate) struct Slapd {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    tls_port: u16,
    ca: String,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Slapd {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
        fs::write(at("ca.pem"), &ca).unwrap();
        fs::write(at("cert.pem"), certificate.pem()).unwrap();
        fs::write(at("key.pem"), own.serialize_pem()).unwrap();
        fs::create_dir(at("db")).unwrap();
        let home = dir.path().display();
        let config = format!(
            "include /etc/ldap/schema/core.schema\n\
             include /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\n\
             modulepath /usr/lib/ldap\n\
             moduleload back_mdb\n\
             moduleload memberof\n\
             TLSCACertificateFile {home}/ca.pem\n\
             TLSCertificateFile {home}/cert.pem\n\
             TLSCertificateKeyFile {home}/key.pem\n\
             # The trap: whoever shows no password is let in, as nobody.\n\
             allow bind_anon_cred\n\
             database mdb\n\
             suffix \"{BASE}\"\n\
             rootdn \"{ROOT}\"\n\
             rootpw {ROOT_SECRET}\n\
             directory {home}/db\n\
             maxsize 16777216\n\
             overlay memberof\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=\"{READER}\" read by users read by * none\n"
        );
        fs::write(at("slapd.conf"), config).unwrap();
        let (child, port, tls_port) = begin(&at("slapd.conf"));
        let slapd = Self { dir, child, port, tls_port, ca };
        slapd.change("ldapadd", ENTRIES);
        slapd
    }

    /// Changes entries as the server's own administrator does.
    pub(crate) fn modify(&self, ldif: &str) {
        self.change("ldapmodify", ldif);
    }

    fn change(&self, program: &str, ldif: &str) {
        let url = format!("ldap://127.0.0.1:{}", self.port);
        let mut child = Command::new(program)
            .args(["-x", "-H", &url, "-D", ROOT, "-w", ROOT_SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}, of Debian's package ldap-utils: {e}"));
        child.stdin.take().unwrap().write_all(ldif.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program} failed");
    }

    /// Ends it, as a server ends that is down.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Begins again where it was.
    pub(crate) fn start_again(&mut self) {
        let config = self.dir.path().join("slapd.conf");
        self.child = spawn(&config, self.port, self.tls_port);
        assert!(wait(&mut self.child, self.port), "slapd doesn't begin again");
    }

    /// As who knows the server would set it up.
    pub(crate) fn settings(&self) -> DirectorySettings {
        DirectorySettings {
            url: format!("ldaps://127.0.0.1:{}", self.tls_port),
            start_tls: false,
            insecure: false,
            ca_certificate: Some(self.ca.clone()),
            bind_dn: READER.into(),
            bind_template: None,
            base_dn: BASE.into(),
            user_filter: "(&(objectClass=inetOrgPerson)(|(uid={name})(mail={name})))".into(),
            name_attribute: "uid".into(),
            id_attribute: "entryUUID".into(),
            full_name_attribute: "cn".into(),
            email_attribute: "mail".into(),
            group_attribute: "memberOf".into(),
            group_filter: String::new(),
            group_base_dn: String::new(),
            timeout_seconds: 5,
            create_users: true,
        }
    }

    /// The same without TLS, or with what begins without.
    pub(crate) fn plain_url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }
}

/// Begins on two ports that are free.
fn begin(config: &PathBuf) -> (Child, u16, u16) {
    // Another program may be faster to take a port.
    for _ in 0..5 {
        let (a, b) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = (a.local_addr().unwrap().port(), b.local_addr().unwrap().port());
        drop((a, b));
        let mut child = spawn(config, ports.0, ports.1);
        if wait(&mut child, ports.0) {
            return (child, ports.0, ports.1);
        }
    }
    panic!("slapd doesn't begin");
}

fn spawn(config: &PathBuf, port: u16, tls_port: u16) -> Child {
    let urls = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
    Command::new("/usr/sbin/slapd")
        .arg("-f")
        .arg(config)
        .args(["-d", "0", "-h", &urls])
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("slapd, of Debian's package of that name: {e}"))
}

/// Whether it serves before it ends.
fn wait(child: &mut Child, port: u16) -> bool {
    let end = Instant::now() + BEGIN;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
