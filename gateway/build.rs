//! Tells the code which compiler builds it, for `roomcast_build_info`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ROOMCAST_COMMIT");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    println!("cargo::rustc-env=ROOMCAST_RUSTC={}", said.split(' ').nth(1).unwrap_or("unknown"));
}
