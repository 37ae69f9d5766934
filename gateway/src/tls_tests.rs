use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

use super::*;

/// Files that are gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A certificate and its key, in `cert` and `key`.
    fn pair(&self, year: i32) -> ListenerTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let cert_file = self.write("cert", &params.self_signed(&key).unwrap().pem());
        let key_file = self.write("key", &key.serialize_pem());
        ListenerTls { cert_file: Some(cert_file), key_file: Some(key_file), ..ListenerTls::default() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refused(settings: &ListenerTls) -> TlsError {
    Tls::load(settings).expect_err("files that cannot be used")
}

#[test]
fn a_pair_is_loaded_and_says_when_it_expires() {
    let folder = Folder::new();
    let tls = Tls::load(&folder.pair(2040)).unwrap().unwrap();
    assert_eq!(tls.expiry(), Some(2_208_988_800));
    assert_eq!(tls.config().alpn_protocols, [b"http/1.1".to_vec()]);
    assert!(Tls::load(&ListenerTls::default()).unwrap().is_none());
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = Folder::new();
    let good = folder.pair(2040);
    let with = |change: &dyn Fn(&mut ListenerTls)| {
        let mut settings = good.clone();
        change(&mut settings);
        refused(&settings)
    };
    let missing = Some(folder.0.join("nowhere"));
    let garbage =
        Some(folder.write("garbage", "-----BEGIN CERTIFICATE-----\nno!\n-----END CERTIFICATE-----\n"));
    let empty = Some(folder.write("empty", ""));
    let other = Some(folder.write("other", &KeyPair::generate().unwrap().serialize_pem()));
    let cases: [(TlsError, &str, &str); 8] = [
        (with(&|tls| tls.cert_file = missing.clone()), "tls_unreadable", "nowhere"),
        (with(&|tls| tls.key_file = missing.clone()), "tls_unreadable", "nowhere"),
        (with(&|tls| tls.client_ca_file = missing.clone()), "tls_unreadable", "nowhere"),
        (with(&|tls| tls.cert_file = garbage.clone()), "tls_malformed", "garbage"),
        (with(&|tls| tls.key_file = empty.clone()), "tls_malformed", "empty"),
        (with(&|tls| tls.client_ca_file = empty.clone()), "tls_empty", "empty"),
        (with(&|tls| tls.key_file = other.clone()), "tls_mismatch", "other"),
        (with(&|tls| tls.key_file = None), "tls_half", "belong together"),
    ];
    for (error, code, told) in cases {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn files_are_taken_when_they_change_and_only_if_they_are_a_pair() {
    let folder = Folder::new();
    let tls = Tls::load(&folder.pair(2040)).unwrap().unwrap();
    let before = tls.config();
    assert_eq!(tls.reload().unwrap(), Reloaded::Same);

    folder.write("key", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(tls.reload().unwrap_err().code(), "tls_mismatch");
    assert_eq!(tls.reload().unwrap(), Reloaded::Same, "it is told once");
    fs::remove_file(folder.0.join("key")).unwrap();
    assert_eq!(tls.reload().unwrap_err().code(), "tls_unreadable");
    assert_eq!(tls.reload().unwrap(), Reloaded::Same);
    assert!(Arc::ptr_eq(&before, &tls.config()), "the one before is in force");

    folder.pair(2041);
    assert_eq!(tls.reload().unwrap(), Reloaded::Taken);
    assert!(!Arc::ptr_eq(&before, &tls.config()));
    assert_eq!(tls.expiry(), Some(2_240_611_200));
}

#[test]
fn the_first_certificate_of_a_chain_to_expire_counts() {
    let folder = Folder::new();
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.not_after = date_time_ymd(2035, 1, 1);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let mut leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    leaf.not_after = date_time_ymd(2040, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let settings = ListenerTls {
        cert_file: Some(folder.write("cert", &format!("{}{}", leaf.pem(), ca_cert.pem()))),
        key_file: Some(folder.write("key", &key.serialize_pem())),
        client_ca_file: Some(folder.write("ca", &ca_cert.pem())),
        ..ListenerTls::default()
    };
    assert_eq!(Tls::load(&settings).unwrap().unwrap().expiry(), Some(2_051_222_400));
}

#[test]
fn a_certificate_has_a_name_in_one_line() {
    let name = |subject: &str, names: Vec<SanType>| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        if !subject.is_empty() {
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        name_of(params.self_signed(&key).unwrap().der())
    };
    let uri = || SanType::URI("spiffe://prod/orders".try_into().unwrap());
    let dns = || SanType::DnsName("orders.example".try_into().unwrap());
    assert_eq!(name("orders", vec![uri(), dns()]), "spiffe://prod/orders");
    assert_eq!(name("orders", vec![dns()]), "orders.example");
    assert!(name("orders", Vec::new()).ends_with("CN=orders"));
    assert!(!name("a\nb", Vec::new()).contains('\n'));
    assert!(name(&"x".repeat(1_000), Vec::new()).chars().count() <= MAX_NAME);
    // Valid, and without any name, such as with an address alone: it is told from others all the same.
    let address = || vec![SanType::IpAddress([10, 1, 2, 3].into())];
    let nameless = name("", address());
    assert!(nameless.starts_with("sha256:") && nameless.len() == 7 + 64, "{nameless}");
    assert_ne!(nameless, name("", address()));
    let unreadable = name_of(&CertificateDer::from(b"abc".to_vec()));
    assert_eq!(unreadable, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
