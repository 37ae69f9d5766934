//! The memory of this process and what it may have, as Linux tells them. Elsewhere nothing is known.

use std::path::{Path, PathBuf};

const CGROUPS: &str = "/sys/fs/cgroup";

/// The resident memory of this process, in bytes.
pub(super) fn resident() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What this process may have, in bytes: the least of the bounds of its control groups (version 2), or all of the machine.
pub(super) fn limit() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kilobytes(&text, "MemTotal:"));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bounds = files(&groups).into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
    // "max" is no bound.
    bounds.filter_map(|text| text.trim().parse().ok()).chain(machine).min()
}

/// A line such as `VmRSS:    1234 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// The files with the bounds of the groups that a process is in, from `/proc/self/cgroup`: its own and those above. In a
/// container the own one is the root.
fn files(groups: &str) -> Vec<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let own = Path::new(CGROUPS).join(own.trim_start_matches('/'));
    own.ancestors()
        .take_while(|group| group.starts_with(CGROUPS))
        .map(|group| group.join("memory.max"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_process_are_walked_to_the_root() {
        let shown = |groups| files(groups).iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        let all = [
            "/sys/fs/cgroup/system.slice/roomcast.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(shown("1:cpu:/x\n0::/system.slice/roomcast.service\n"), all);
        assert_eq!(shown("0::/\n"), all[2..]);
        assert_eq!(shown(""), all[2..]);
    }

    #[test]
    fn lines_are_read_in_kilobytes() {
        let status = "Name:\troomcast\nVmRSS:\t    2048 kB\nVmHWM: 1 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(2 << 20));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
        assert_eq!(kilobytes("VmRSS: many kB", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_a_bound() {
        let (resident, limit) = (resident().unwrap(), limit().unwrap());
        assert!(resident > 0 && resident < limit, "{resident} of {limit}");
    }
}
