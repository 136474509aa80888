use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Texts that no parser may take for anything, nor fall over.
const GARBAGE: [&str; 9] = [
    "",
    "\n",
    " ",
    "a",
    "-1 -1",
    "usage_usec 18446744073709551616",
    "8:0",
    "8:0 Read",
    "some avg10=x",
];

#[test]
fn numbers_and_limits() {
    for (text, expected) in [("7\n", Some(7)), (" 0", Some(0)), ("x", None), ("-1", None)] {
        assert_eq!(number(text), expected, "{text:?}");
    }
    for (text, expected) in [
        ("max\n", Some(Limit::Unlimited)),
        ("-1\n", Some(Limit::Unlimited)),
        ("9223372036854771712\n", Some(Limit::Unlimited)),
        ("67108864\n", Some(Limit::At(64 << 20))),
        ("0", Some(Limit::At(0))),
        ("most", None),
        ("", None),
    ] {
        assert_eq!(limit(text), expected, "{text:?}");
    }
}

#[test]
fn cpu_time_of_v2() {
    let text = "usage_usec 3953345\nuser_usec 3900000\nsystem_usec 53345\n\
                core_sched.force_idle_usec 0\nnr_periods 144\nnr_throttled 140\n\
                throttled_usec 10097311\nnr_bursts 2\nburst_usec 7\n";
    let stat = cpu_stat_v2(text);
    assert_eq!(stat.usage, Some(Duration::from_micros(3_953_345)));
    assert_eq!(stat.user, Some(Duration::from_micros(3_900_000)));
    assert_eq!(stat.system, Some(Duration::from_micros(53_345)));
    let expected = Throttling {
        periods: 144,
        throttled_periods: 140,
        throttled: Duration::from_micros(10_097_311),
        burst_periods: 2,
        burst: Duration::from_micros(7),
    };
    assert_eq!(stat.throttling, Some(expected));
    // The root is never throttled.
    assert_eq!(cpu_stat_v2("usage_usec 1\n").throttling, None);
}

#[test]
fn throttling_of_v1_is_in_nanoseconds() {
    let text = "nr_periods 144\nnr_throttled 144\nthrottled_time 10097311402\n\
                nr_bursts 0\nburst_time 5\n";
    let expected = Throttling {
        periods: 144,
        throttled_periods: 144,
        throttled: Duration::from_nanos(10_097_311_402),
        burst_periods: 0,
        burst: Duration::from_nanos(5),
    };
    assert_eq!(throttling_v1(text), Some(expected));
}

#[test]
fn user_and_system_time_of_v1_are_in_ticks() {
    let expected = (
        Some(Duration::from_millis(2870)),
        Some(Duration::from_millis(30)),
    );
    assert_eq!(cpuacct_stat("user 287\nsystem 3\n"), expected);
    assert_eq!(cpuacct_stat("user 287\n"), (expected.0, None));
}

#[test]
fn cpu_limits_of_v2() {
    for (max, weight, shares, quota, period) in [
        (
            Some("20000 100000\n"),
            Some(8),
            Some(185),
            Some(Limit::At(20_000)),
            Some(100_000),
        ),
        (
            Some("max 100000\n"),
            Some(1),
            Some(2),
            Some(Limit::Unlimited),
            Some(100_000),
        ),
        (None, Some(10_000), Some(262_144), None, None),
        (Some(""), None, None, None, None),
        (None, Some(0), None, None, None),
        (None, Some(10_001), None, None, None),
    ] {
        let expected = CpuLimit {
            shares,
            quota,
            period,
        };
        assert_eq!(cpu_limit_v2(max, weight), expected, "{max:?} {weight:?}");
    }
}

#[test]
fn memory_of_v1_counts_what_is_below() {
    let text = "cache 1\nrss 2\npgfault 10\npgmajfault 1\ninactive_file 3\n\
                total_cache 4096\ntotal_rss 61440\ntotal_mapped_file 7\ntotal_swap 512\n\
                total_pgfault 870\ntotal_pgmajfault 4\ntotal_inactive_file 1000\n\
                total_active_file 2000\n";
    let (memory, swap) = memory_v1(text, 258_048);
    assert_eq!(swap, Some(512));
    assert_eq!(memory.working_set, 257_048);
    assert_eq!((memory.rss, memory.cache), (61_440, 4096));
    assert_eq!((memory.active_file, memory.mapped_file), (2000, 7));
    assert_eq!((memory.faults.all, memory.faults.major), (870, 4));
    assert_eq!((memory.own_faults.all, memory.own_faults.major), (10, 1));
}

#[test]
fn memory_of_v2() {
    let text = "anon 61440\nfile 4096\nkernel 184320\nfile_mapped 7\ninactive_file 1000\n\
                active_file 2000\npgfault 870\npgmajfault 4\n";
    let (memory, kernel) = memory_v2(text, 258_048);
    assert_eq!(kernel, Some(184_320));
    assert_eq!((memory.working_set, memory.usage), (257_048, 258_048));
    assert_eq!((memory.rss, memory.cache), (61_440, 4096));
    assert_eq!(memory.faults, memory.own_faults);
}

#[test]
fn more_page_cache_than_usage_is_no_working_set() {
    // The two files are not read at the same instant.
    assert_eq!(memory_v1("total_inactive_file 10\n", 5).0.working_set, 0);
    assert_eq!(memory_v2("inactive_file 10\n", 5).0.working_set, 0);
}

#[test]
fn counts_of_memory_events() {
    let events = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";
    assert_eq!(count(events, "max"), Some(12));
    assert_eq!(count(events, "oom_kill"), Some(1));
    let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
    assert_eq!(count(v1, "oom_kill"), Some(3));
    assert_eq!(count(v1, "absent"), None);
}

#[test]
fn memory_of_the_machine() {
    let text = "MemTotal:       24684096 kB\nMemFree:         1024 kB\nHugePages_Total:  4\n";
    assert_eq!(meminfo(text, "MemTotal"), Some(24_684_096 * 1024));
    assert_eq!(meminfo(text, "Mem"), None);
    assert_eq!(meminfo(text, "HugePages_Total"), None);
}

#[test]
fn pressure_of_some_and_all() {
    let text = "some avg10=0.12 avg60=1.50 avg300=99.00 total=2500000\n\
                full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    let pressure = pressure(text).unwrap();
    assert_eq!(pressure.some.total, 2_500_000);
    assert_eq!(pressure.full.total, 7);
    let some = [
        pressure.some.avg10,
        pressure.some.avg60,
        pressure.some.avg300,
    ];
    assert_eq!(some.map(f64::to_bits), [0.12, 1.5, 99.0].map(f64::to_bits));
    let only_some = super::pressure(text.lines().next().unwrap()).unwrap();
    assert_eq!(only_some.full, Stall::default());
    for bad in ["some avg10=nan total=1", "some avg10=1 total=-1", "some x"] {
        assert_eq!(super::pressure(bad), None, "{bad}");
    }
}

const VDA: DeviceNumber = DeviceNumber {
    major: 254,
    minor: 0,
};

#[test]
fn block_io_of_v1() {
    let text = "254:0 Read 8192\n254:0 Write 4096\n254:0 Sync 12288\n254:0 Total 12288\n\
                8:16 Read 1\n8:16 Total 1\nTotal 12289\n";
    let devices = blkio(text);
    assert_eq!(devices.len(), 2);
    let expected = ReadsWrites {
        reads: 8192,
        writes: 4096,
    };
    assert_eq!(devices[0], (VDA, expected));
    assert_eq!(devices[1].0.minor, 16);
    assert_eq!(devices[1].1.writes, 0);
}

#[test]
fn block_io_of_v2() {
    let text = "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n8:16 \nx:y rbytes=1\n";
    let devices = io_stat(text);
    let bytes = ReadsWrites {
        reads: 8192,
        writes: 4096,
    };
    let operations = ReadsWrites {
        reads: 2,
        writes: 1,
    };
    assert_eq!(devices[0], (VDA, bytes, operations));
    assert_eq!(devices.len(), 2);
}

#[test]
fn processes_of_a_cgroup() {
    let two = processes("4711\n4712\n");
    assert_eq!((two.count, two.first), (2, Some(4711)));
    let none = processes("");
    assert_eq!((none.count, none.first), (0, None));
    assert_eq!(processes("x\n").first, None);
}

#[test]
fn open_files_of_a_process() {
    let line =
        |soft: &str| format!("Limit  Soft\nMax open files            {soft}   2048   files\n");
    assert_eq!(max_open_files(&line("1024")), Some(Limit::At(1024)));
    assert_eq!(max_open_files(&line("unlimited")), Some(Limit::Unlimited));
    assert_eq!(max_open_files(&line("many")), None);
    assert_eq!(max_open_files("Max processes 1 1\n"), None);
}

#[test]
fn cgroup_of_a_process() {
    let v1 = "9:memory:/a\n4:cpu,cpuacct:/b:c\n1:name=systemd:/d\n0::/e\n";
    assert_eq!(cgroup_of(v1, "memory"), Some("/a"));
    assert_eq!(cgroup_of(v1, "cpuacct"), Some("/b:c"));
    assert_eq!(cgroup_of(v1, ""), Some("/e"));
    assert_eq!(cgroup_of(v1, "pids"), None);
    assert_eq!(cgroup_of("9:memory", "memory"), None);
}

fn parse_all(text: &str) {
    let _ = (number(text), limit(text), cpu_stat_v2(text));
    let _ = (throttling_v1(text), cpuacct_stat(text), count(text, "max"));
    let _ = cpu_limit_v2(Some(text), number(text));
    let _ = (memory_v1(text, 1), memory_v2(text, 1), pressure(text));
    let _ = (blkio(text), io_stat(text), processes(text));
    let _ = (
        max_open_files(text),
        cgroup_of(text, ""),
        meminfo(text, "a"),
    );
}

#[test]
fn garbage_is_nothing() {
    for text in GARBAGE {
        parse_all(text);
        assert_eq!(cpu_stat_v2(text), CpuStat::default(), "{text:?}");
        assert_eq!(pressure(text), None, "{text:?}");
        assert!(
            blkio(text).is_empty() && throttling_v1(text).is_none(),
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "(?s)[a-z_=: .0-9\n-]{0,200}|.{0,200}") {
        parse_all(&text);
    }
}
