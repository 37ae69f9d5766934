//! The memory of this process and what it may have, as Linux tells them. Elsewhere nothing is known.

use std::path::{Path, PathBuf};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Where version 1 has the groups of its controller of memory.
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// The resident memory of this process, in bytes.
pub(super) fn resident() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What this process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// In bytes.
    pub(super) bytes: u64,
    /// Whether a control group says so. Otherwise it is all that the machine has.
    pub(super) of_group: bool,
}

/// What this process may have: the least of the bounds of its control groups, or all of the machine.
pub(super) fn limit() -> Option<Limit> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bounds = files(&groups).into_iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    least(bounds, machine.and_then(|text| kilobytes(&text, "MemTotal:")))
}

/// The least bound of groups, unless the machine has no more. None is "max" in version 2, and more than any machine has in 1.
fn least(bounds: impl Iterator<Item = String>, machine: Option<u64>) -> Option<Limit> {
    let group = bounds.filter_map(|text| text.trim().parse().ok()).min();
    match (group, machine) {
        (Some(bytes), Some(machine)) if bytes < machine => Some(Limit { bytes, of_group: true }),
        (Some(bytes), None) => Some(Limit { bytes, of_group: true }),
        (_, machine) => machine.map(|bytes| Limit { bytes, of_group: false }),
    }
}

/// A line such as `VmRSS:    1234 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// The files with the bounds of the groups that a process is in, from `/proc/self/cgroup`: its own and those above. In a
/// container the own one is the root. Version 2 has one line for all controllers, version 1 one for that of memory.
fn files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut walk = |root: &str, own: &str, name: &str| {
        let own = Path::new(root).join(own.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|group| group.starts_with(root));
        files.extend(groups.map(|group| group.join(name)));
    };
    walk(CGROUPS, groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/"), "memory.max");
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(own)) = (parts.next(), parts.next())
            && controllers.split(',').any(|controller| controller == "memory")
        {
            walk(MEMORY, own, "memory.limit_in_bytes");
        }
    }
    files
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
    fn groups_of_version_1_are_read_too() {
        let groups =
            files("12:memory,hugetlb:/docker/abc\n11:cpu:/docker/abc\n1:name=systemd:/docker/abc\n0::/x\n");
        let shown: Vec<_> = groups.iter().map(|file| file.display().to_string()).collect();
        let expected = [
            "/sys/fs/cgroup/x/memory.max",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_least_bound_counts_and_what_is_no_bound_is_the_machine() {
        let of = |bounds: &[&str], machine| least(bounds.iter().map(|text| format!("{text}\n")), machine);
        let group = |bytes| Some(Limit { bytes, of_group: true });
        let machine = Some(Limit { bytes: 1 << 34, of_group: false });
        assert_eq!(of(&["max", "2000", "1000"], Some(1 << 34)), group(1_000));
        assert_eq!(of(&["1000"], None), group(1_000));
        assert_eq!(of(&["max", "9223372036854771712"], Some(1 << 34)), machine);
        assert_eq!((of(&[], Some(1 << 34)), of(&["max"], None)), (machine, None));
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
        let (resident, limit) = (resident().unwrap(), limit().unwrap().bytes);
        assert!(resident > 0 && resident < limit, "{resident} of {limit}");
    }
}
