use proptest::prelude::*;

use super::*;

fn block(host_id: u32, length: u32) -> IdMapping {
    IdMapping {
        host_id,
        container_id: 0,
        length,
    }
}

#[test]
fn ranges() {
    let ours = |numbers: &str| format!("root:100000:65536\nkubelet:{numbers}\n# x\n");
    let range = |subuid: &str, subgid: &str| {
        IdRange::of_node(subuid, subgid, UNIT, 110).map_err(|error| error.to_string())
    };
    let of = |first, blocks| {
        Ok(IdRange {
            first,
            per_pod: UNIT,
            blocks,
        })
    };
    let failed = |text: &str| Err(text.to_owned());
    let good = ours("131072:7208960");
    for (subuid, subgid, expected) in [
        ("", "", of(UNIT, 110)),
        ("root:1:2\n", "kubelet2:1:2\n", of(UNIT, 110)),
        (good.as_str(), good.as_str(), of(131_072, 110)),
        (
            &good,
            "",
            failed("the subordinate users and groups of kubelet differ"),
        ),
        (
            &ours("1:x"),
            "",
            failed("/etc/subuid: \"kubelet:1:x\" is not NAME:FIRST:COUNT"),
        ),
        (
            &good.repeat(2),
            &good,
            failed("/etc/subuid: kubelet has more than one range"),
        ),
        (
            &ours("65537:7208960"),
            &ours("65537:7208960"),
            failed("the first subordinate ID 65537 is not a multiple of 65536 above zero"),
        ),
        (
            &ours("0:7208960"),
            &ours("0:7208960"),
            failed("the first subordinate ID 0 is not a multiple of 65536 above zero"),
        ),
        (
            &ours("65536:7208961"),
            &ours("65536:7208961"),
            failed("7208961 subordinate IDs are not a multiple of 65536"),
        ),
        (
            &ours("65536:65536"),
            &ours("65536:65536"),
            failed("65536 subordinate IDs, 65536 for each pod, are not enough for 110 pods"),
        ),
    ] {
        assert_eq!(range(subuid, subgid), expected, "{subuid:?} {subgid:?}");
    }
}

#[test]
fn the_lowest_free_block_is_taken_next() {
    let range = IdRange::of_node("", "", UNIT, 3).unwrap();
    let all = [1, 2, 3].map(|number| block(number * UNIT, UNIT));
    let mut taken = Vec::new();
    for expected in all {
        assert_eq!(range.allocate(&taken), Some(expected));
        taken.push(expected);
    }
    assert_eq!(range.allocate(&taken), None);
    taken.remove(1);
    assert_eq!(range.allocate(&taken), Some(all[1]));
}

#[test]
fn a_range_as_large_as_all_ids_does_not_wrap() {
    let range = IdRange::of_node("", "", UNIT * 32_767, u32::MAX).unwrap();
    let first = range.allocate(&[]).unwrap();
    assert_eq!(first.host_id, UNIT * 32_767);
    assert_eq!(range.allocate(&[first]), None);
}

#[test]
fn the_file_is_upstreams() {
    let mapping = block(131_072, UNIT);
    let text = encode(mapping);
    insta::assert_snapshot!(text, @r#"{"gidMappings":[{"containerId":0,"hostId":131072,"length":65536}],"uidMappings":[{"containerId":0,"hostId":131072,"length":65536}]}"#);
    assert_eq!(decode(&text).unwrap(), mapping);
}

#[test]
fn blocks_that_no_pod_may_have() {
    let file = |users: &str, groups: &str| {
        format!("{{\"uidMappings\": [{users}], \"gidMappings\": [{groups}]}}")
    };
    let one = |host: u64, container: u64, length: u64| {
        format!("{{\"hostId\": {host}, \"containerId\": {container}, \"length\": {length}}}")
    };
    let good = one(65_536, 0, 65_536);
    let both = |mapping: &str| file(mapping, mapping);
    assert!(decode(&both(&good)).is_ok());
    for (text, expected) in [
        (String::new(), "invalid user namespace mappings file"),
        (
            both(&one(1 << 33, 0, 1)),
            "invalid user namespace mappings file",
        ),
        (
            both(""),
            "users and groups must have one mapping, and the same",
        ),
        (
            file(&good, &one(131_072, 0, 65_536)),
            "users and groups must have one mapping, and the same",
        ),
        (
            both(&one(65_536, 1, 65_536)),
            "the mapping must begin at the container's ID 0",
        ),
        (
            both(&one(0, 0, 65_536)),
            "the mapping has IDs of the host's own users, or none",
        ),
        (
            both(&one(65_536, 0, 0)),
            "the mapping has IDs of the host's own users, or none",
        ),
        (
            both(&one(u64::from(u32::MAX), 0, 65_536)),
            "the mapping has IDs of the host's own users, or none",
        ),
    ] {
        assert_eq!(decode(&text).unwrap_err().to_string(), expected, "{text}");
    }
}

proptest! {
    /// Whatever is taken already, also of other sizes, a new block is nobody's
    /// and none of the host's.
    #[test]
    fn blocks_never_overlap(
        taken in prop::collection::vec((0u32..40, 1u32..5), 0..30),
        units in 1u32..4,
    ) {
        let taken: Vec<_> = taken
            .into_iter()
            .map(|(first, length)| block(first * UNIT, length * UNIT))
            .collect();
        let range = IdRange::of_node("", "", units * UNIT, 40).unwrap();
        if let Some(new) = range.allocate(&taken) {
            prop_assert!(new.host_id >= UNIT);
            prop_assert_eq!(new.length, units * UNIT);
            prop_assert!(!taken.iter().any(|other| new.overlaps(*other)));
        }
    }
}
