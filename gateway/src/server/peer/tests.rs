//! What of passing on can be seen without a cluster.

use super::*;

#[test]
fn the_others_are_told_what_they_can_reach() {
    let told = |advertise: Option<&str>, local: &str, towards: Option<&str>| {
        let config = Peer { advertise: advertise.map(str::to_owned), ..Peer::default() };
        let towards = towards.map(|ip| ip.parse().unwrap());
        advertised(&config, local.parse().unwrap(), towards).map(|address| address.to_string())
    };
    let found = |text: &str| Some(text.to_owned());
    assert_eq!(told(None, "127.0.0.1:40000", None), found("127.0.0.1:40000"));
    assert_eq!(told(None, "0.0.0.0:3002", Some("10.1.2.3")), found("10.1.2.3:3002"));
    assert_eq!(told(None, "[::]:3002", Some("fd00::1")), found("[fd00::1]:3002"));
    assert_eq!(told(None, "0.0.0.0:3002", None), None);
    assert_eq!(told(Some("10.9.9.9"), "0.0.0.0:3002", None), found("10.9.9.9:3002"));
    assert_eq!(told(Some("10.9.9.9:80"), "0.0.0.0:3002", Some("10.1.2.3")), found("10.9.9.9:80"));
    assert_eq!(told(Some("fd00::9"), "10.0.0.1:3002", None), found("[fd00::9]:3002"));
}
