//! The test's images: made from the static binaries of Debian packages
//! catatonit and busybox-static, as OCI archives.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::containerd::Containerd;

pub const PAUSE: &str = "kubelet-rs.test/pause:1";
pub const BUSYBOX: &str = "kubelet-rs.test/busybox:1";

/// Makes the images and loads them into containerd.
pub fn import(containerd: &Containerd) {
    let pause = json!({"Entrypoint": ["/catatonit", "-P"]});
    let busybox = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
    make(containerd, PAUSE, pause, &[("catatonit", "catatonit")]);
    let files = [
        ("busybox", "bin/busybox"),
        ("busybox", "bin/sh"),
        ("busybox", "bin/sleep"),
    ];
    make(containerd, BUSYBOX, busybox, &files);
}

fn make(containerd: &Containerd, name: &str, config: Value, files: &[(&str, &str)]) {
    let work = containerd.path("image");
    let (tree, layout) = (work.join("tree"), work.join("layout"));
    for (program, path) in files {
        let target = tree.join(path);
        fs::create_dir_all(target.parent().expect("parent")).expect("directory");
        fs::copy(find(program), target).expect(program);
    }
    fs::create_dir_all(layout.join("blobs/sha256")).expect("directory");
    let layer = work.join("layer.tar");
    tar(&tree, &layer);
    let layer = fs::read(layer).expect("layer");
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config_blob = blob(
        &layout,
        "application/vnd.oci.image.config.v1+json",
        &to_vec(&config),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config_blob,
        "layers": [blob(&layout, "application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let mut entry = blob(
        &layout,
        "application/vnd.oci.image.manifest.v1+json",
        &to_vec(&manifest),
    );
    entry["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), to_vec(&index)).expect("index");
    fs::write(
        layout.join("oci-layout"),
        to_vec(&json!({"imageLayoutVersion": "1.0.0"})),
    )
    .expect("layout");
    let archive = work.join("image.tar");
    tar(&layout, &archive);
    let archive = archive.to_str().expect("path");
    let output = containerd.ctr(&["images", "import", archive]).expect("ctr");
    assert!(output.status.success(), "{output:?}");
    fs::remove_dir_all(work).expect("clean up");
}

fn find(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed"))
}

fn tar(tree: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(tree)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status()
        .expect("tar");
    assert!(status.success());
}

fn blob(layout: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = digest(content);
    let file = digest.replacen(':', "/", 1);
    fs::write(layout.join("blobs").join(file), content).expect("blob");
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn to_vec(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
