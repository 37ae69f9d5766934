//! What must hold for draining, rebalancing and admission.

use super::validate::{form, zeros};
use super::{Config, MemoryLimit, Problem};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let (drain, rebalance, admission) = (&config.drain, &config.rebalance, &config.admission);
    problems.extend(zeros([
        ("drain.rate", drain.rate == 0),
        ("rebalance.rate", rebalance.rate == 0),
        ("admission.handshakes_per_second", admission.handshakes_per_second == Some(0)),
        ("admission.handshakes_burst", admission.handshakes_burst == Some(0)),
    ]));
    if let Some(threshold) = rebalance.threshold.filter(|threshold| !(0.01..=10.0).contains(threshold)) {
        let threshold = threshold.to_string();
        problems.push(form("rebalance.threshold", &threshold, "a share from 0.01 to 10"));
    }
    if admission.handshakes_burst.is_some() && admission.handshakes_per_second.is_none() {
        let needs = "`admission.handshakes_per_second`";
        problems.push(Problem::Needs { key: "admission.handshakes_burst", needs });
    }
    match admission.max_memory {
        Some(MemoryLimit::Bytes(0)) => problems.push(Problem::Zero("admission.max_memory")),
        Some(_) if !cfg!(target_os = "linux") => {
            problems.push(Problem::Needs { key: "admission.max_memory", needs: "Linux" });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap();
        let mut problems = Vec::new();
        super::check(&config, &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn each_check_finds_its_problem() {
        let cases = [
            ("drain.rate = 0", "`drain.rate` must be greater than 0"),
            ("rebalance.rate = 0", "`rebalance.rate` must be greater than 0"),
            ("rebalance.threshold = 0.0", "\"0\" is not a share from 0.01 to 10"),
            ("rebalance.threshold = nan", "\"NaN\" is not a share from 0.01 to 10"),
            (
                "admission.handshakes_per_second = 0",
                "`admission.handshakes_per_second` must be greater than 0",
            ),
            ("admission.handshakes_burst = 5", "needs `admission.handshakes_per_second`"),
            ("admission.max_memory = 0", "`admission.max_memory` must be greater than 0"),
        ];
        for (toml, expected) in cases {
            let found = check(toml);
            assert!(found.len() == 1 && found[0].contains(expected), "{toml}: {found:?}");
        }
    }

    #[test]
    fn what_looks_unusual_but_works_is_taken() {
        let toml = "
            drain = { delay = 0, period = 0, grace = 0 }
            rebalance = { threshold = 0.2, floor = 0 }
            admission = { handshakes_per_second = 1, handshakes_burst = 1 }
        ";
        assert_eq!(check(toml), Vec::<String>::new());
    }
}
