//! Compiles the CRI protobuf; needs `protoc` (Debian: protobuf-compiler).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .build_transport(false)
        // Tests answer calls themselves.
        .server_mod_attribute(".", "#[cfg(test)]")
        .generate_default_stubs(true)
        // Maps that we send are ordered, so that equal specs are equal bytes.
        .btree_map(".runtime.v1.PodSandboxConfig")
        .btree_map(".runtime.v1.LinuxPodSandboxConfig")
        .btree_map(".runtime.v1.ContainerConfig")
        .btree_map(".runtime.v1.LinuxContainerResources")
        // Credentials are never printed; see `runtime::cri`.
        .skip_debug([".runtime.v1.AuthConfig"])
        .compile_protos(&["proto/cri/v1.proto"], &["proto"])?;
    Ok(())
}
