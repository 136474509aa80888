//! Counters of network interfaces.

use std::path::Path;

use jiff::Timestamp;
use procfs::FromBufRead as _;
use procfs::net::{DeviceStatus, InterfaceDeviceStatus};

use super::files::Files;
use super::model::{Interface, Network, NodeNetwork, Traffic};

/// Interfaces that carry no traffic of their own, or that of another namespace
/// whose counters are told there.
const UNCOUNTED: [&str; 2] = ["lo", "veth"];

/// The network of this process, which is the node's.
pub(super) fn node(files: &mut Files, now: Timestamp) -> Option<NodeNetwork> {
    let directory = Path::new("/proc/self/net");
    let network = network(files.list(directory, "dev")?, now)?;
    let primary = files.list(directory, "route").and_then(default_route);
    Some(NodeNetwork { primary, network })
}

/// The network that the process is in.
pub(super) fn of_process(files: &mut Files, process: u32, now: Timestamp) -> Option<Network> {
    let directory = format!("/proc/{process}/net");
    network(files.list(Path::new(&directory), "dev")?, now)
}

fn network(text: &str, at: Timestamp) -> Option<Network> {
    let devices = InterfaceDeviceStatus::from_buf_read(text.as_bytes()).ok()?;
    let mut interfaces: Vec<Interface> = devices
        .0
        .into_values()
        .filter(|device| is_counted(&device.name))
        .map(interface)
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Network { at, interfaces })
}

fn is_counted(name: &str) -> bool {
    !UNCOUNTED.iter().any(|prefix| match *prefix {
        "lo" => name == "lo",
        prefix => name.starts_with(prefix),
    })
}

fn interface(device: DeviceStatus) -> Interface {
    Interface {
        name: device.name,
        received: Traffic {
            bytes: device.recv_bytes,
            packets: device.recv_packets,
            errors: device.recv_errs,
            dropped: device.recv_drop,
        },
        sent: Traffic {
            bytes: device.sent_bytes,
            packets: device.sent_packets,
            errors: device.sent_errs,
            dropped: device.sent_drop,
        },
    }
}

/// The interface of the default route with the least metric, in the text of
/// `/proc/net/route`.
fn default_route(text: &str) -> Option<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, "00000000", _, _, _, _, metric, "00000000", ..] = fields.as_slice() else {
            return None;
        };
        Some((metric.parse::<u32>().ok()?, (*name).to_owned()))
    };
    let routes = text.lines().skip(1).filter_map(default);
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
veth1a: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
  eth1: 18446744073709551615 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
  eth0: 1419750530   93992    1    2    0     0          0         0  7202066   68387    3    4    0     0       0          0
";

    #[test]
    fn counters_by_interface() {
        let network = network(DEV, Timestamp::UNIX_EPOCH).unwrap();
        let names: Vec<_> = network.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        let received = Traffic {
            bytes: 1_419_750_530,
            packets: 93_992,
            errors: 1,
            dropped: 2,
        };
        let sent = Traffic {
            bytes: 7_202_066,
            packets: 68_387,
            errors: 3,
            dropped: 4,
        };
        assert_eq!(network.interfaces[0].received, received);
        assert_eq!(network.interfaces[0].sent, sent);
        assert_eq!(network.interfaces[1].received.bytes, u64::MAX);
    }

    #[test]
    fn garbage_is_no_network() {
        let header = DEV.lines().take(2).collect::<Vec<_>>().join("\n");
        for line in ["eth0", "eth0:", "eth0: 1 2 3", "eth0: x", ": 1", "\0"] {
            let text = format!("{header}\n{line}\n");
            assert_eq!(network(&text, Timestamp::UNIX_EPOCH), None, "{line:?}");
        }
    }

    #[test]
    fn the_primary_interface_has_the_default_route() {
        const HEADER: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let route = |lines: &str| default_route(&format!("{HEADER}{lines}"));
        let two = "eth1\t00000000\t0100A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
                   eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        assert_eq!(route(two), Some("eth0".to_owned()));
        let local = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(route(local), None);
        assert_eq!(route("eth0 00000000"), None);
        assert_eq!(default_route(""), None);
    }
}
