//! Mounts of parts of volumes.

use super::*;

#[test]
fn parts_of_volumes_are_mounted_from_where_they_were_prepared() {
    let mut given = Given::new().with_volume("v", true);
    let container = "volumeMounts: [{name: v, mountPath: /all},
                                    {name: v, mountPath: /part, subPath: a/b}]";
    assert_eq!(given.sub_paths(container), Ok(vec![(1, "a/b".into())]));
    given.files.sub_paths.insert(1, "/prepared/1".into());
    let mounts = given.only(container).unwrap().mounts;
    let host_paths: Vec<_> = mounts
        .iter()
        .map(|m| m.host_path.to_str().unwrap())
        .collect();
    assert_eq!(host_paths[..2], ["/pods/u/volumes/v", "/prepared/1"]);
    assert!(mounts[1].read_only);
}

#[test]
fn sub_paths_are_made_from_variables() {
    let given = Given::new().with_volume("v", false);
    let with = |expression: &str| {
        given.sub_paths(&format!(
            "env: [{{name: A, value: one}}, {{name: B, value: /abs}}, {{name: C, value: ..}},
                   {{name: E}}, {{name: T, value: '`ls`'}}],
             volumeMounts: [{{name: v, mountPath: /x, subPathExpr: '{expression}'}}]"
        ))
    };
    let path = |path: &str| Ok(vec![(0, path.to_owned())]);
    for (expression, expected) in [
        ("plain", path("plain")),
        ("$(A)/b", path("one/b")),
        ("$$(A)", path("$(A)")),
        ("$(T)", path("`ls`")),
        ("x$(KUBERNETES_SERVICE_HOST)", path("x10.96.0.1")),
        ("$(Z)/$(E)/$(A)/$(Z)", Err("missing value for E, Z".into())),
        (
            "$(B)",
            Err("error SubPath `/abs` must not be an absolute path".into()),
        ),
        (
            "a/$(C)",
            Err("unable to provision SubPath `a/..`: must not contain '..'".into()),
        ),
    ] {
        assert_eq!(with(expression), expected, "{expression}");
    }
}
