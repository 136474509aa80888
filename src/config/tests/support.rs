//! No field is read and silently dropped.

use std::collections::BTreeSet;

use super::super::defaults;
use super::super::schema::Read;
use super::super::support::TABLE;
use super::{Files, config_of, errors_of};

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let mut leaves = Vec::new();
    defaults::pristine().leaves(&mut leaves);
    let fields: BTreeSet<_> = leaves.iter().map(|leaf| leaf.path.as_str()).collect();
    let rows: BTreeSet<_> = TABLE.iter().map(|(path, _)| *path).collect();
    assert_eq!(fields, rows);
    assert_eq!(rows.len(), TABLE.len(), "a row is repeated");
    assert!(fields.len() > 130);
}

#[test]
fn defaults_written_out_cause_no_warning() {
    let files = Files::new().with_fields(
        "config.yaml",
        "evictionHard: {memory.available: 100Mi, nodefs.available: 10%, nodefs.inodesFree: 5%, \
         imagefs.available: 15%, imagefs.inodesFree: 5%}\n\
         port: 10250\nimageGCHighThresholdPercent: 85\nmemorySwap: {swapBehavior: \"\"}\n\
         staticPodURL: \"\"\nenforceNodeAllocatable: [pods]\ncpuManagerPolicy: none\n",
    );
    assert!(files.warnings(&["--config={dir}/config.yaml"]).is_empty());
    assert!(Files::new().warnings(&[]).is_empty());
}

#[test]
fn what_has_no_effect_is_named() {
    let files = Files::new().with_fields(
        "config.yaml",
        "staticPodURL: http://x\nimageMinimumGCAge: 5m\nmaxPods: 20\nport: 10260\n\
         tlsMinVersion: VersionTLS13\nevictionHard: {memory.available: 1Gi}\n\
         hairpinMode: none\n",
    );
    let warnings = files.warnings(&["--config={dir}/config.yaml", "--anonymous-auth"]);
    insta::assert_snapshot!(warnings.join("\n"), @r#"
    {dir}/config.yaml:3:15: staticPodURL: is not supported yet and has no effect
    {dir}/config.yaml:4:20: imageMinimumGCAge: is not supported yet and has no effect
    {dir}/config.yaml:8:15: evictionHard: only lowers the node's allocatable resources; eviction is not supported yet
    "#);
}

#[test]
fn what_would_be_wrong_to_ignore_is_refused() {
    let errors = errors_of(
        "cpuManagerPolicy: static\nmemoryManagerPolicy: Static\n",
        &["--topology-manager-policy=restricted"],
    );
    insta::assert_snapshot!(errors, @r#"
    3 errors in the configuration
      {dir}/config.yaml:3:19: cpuManagerPolicy: "static" is not supported by this agent
      {dir}/config.yaml:4:22: memoryManagerPolicy: "Static" is not supported by this agent
      --topology-manager-policy: "restricted" is not supported by this agent
    "#);
}

#[test]
fn enforcing_nothing_is_honoured() {
    for fields in [
        "enforceNodeAllocatable: []",
        "enforceNodeAllocatable: [none]",
    ] {
        assert!(config_of(fields, &[]).cgroup.enforce.is_empty());
    }
}
