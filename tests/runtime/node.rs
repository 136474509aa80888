//! The runtime module on a real containerd, with what the tests ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubelet::config::ImageVerification;
use kubelet::pod::spec::{
    ContainerSecurity, ContainerSpec, DnsSpec, GroupsPolicy, ImageId, ImageRequest, LinuxResources,
    MountPropagation, MountSpec, NamespaceMode, Namespaces, PullPolicy, RunAs, SandboxSpec,
    SeccompProfile,
};
use kubelet::pod::stamp::{
    ANNOTATION_TERMINATION_PATH, ANNOTATION_TERMINATION_POLICY, LABEL_CONTAINER_NAME,
    LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID,
};
use kubelet::pod::{ContainerId, ObservedPod, PodName, PodUid, SandboxId};
use kubelet::runtime::{CredentialDirs, Handles, ImageSettings, Metrics, RuntimeSettings, connect};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::containerd::Containerd;
use crate::image;

/// Nothing that these tests wait for takes longer unless it is broken.
pub const LIMIT: Duration = Duration::from_secs(20);

/// So rare that whatever a test sees, it did not see by a relist.
const NEVER: Duration = Duration::from_secs(3600);

pub struct Node {
    pub containerd: Containerd,
    pub handles: Handles,
    shutdown: CancellationToken,
    tasks: JoinHandle<()>,
}

impl Node {
    pub async fn start() -> Self {
        Self::with_request_timeout(Duration::from_secs(60)).await
    }

    pub async fn with_request_timeout(request_timeout: Duration) -> Self {
        let containerd = tokio::task::spawn_blocking(Containerd::start)
            .await
            .expect("containerd");
        let settings = RuntimeSettings {
            endpoint: containerd.socket(),
            image_endpoint: None,
            request_timeout,
            pod_logs_dir: containerd.path("pods"),
            container_links_dir: containerd.path("links"),
            images: ImageSettings {
                max_parallel_pulls: None,
                pull_rate: None,
                credential_plugins: Vec::new(),
                credential_dirs: CredentialDirs::default(),
                records: containerd.path("image_manager"),
                verification: ImageVerification::Never,
            },
            relist_period: NEVER,
        };
        let (handles, tasks) = connect(&settings, &Metrics::new(&mut Registry::default()));
        let shutdown = CancellationToken::new();
        let tasks = tokio::spawn(tasks.run(shutdown.clone()));
        Self {
            containerd,
            handles,
            shutdown,
            tasks,
        }
    }

    /// Starts a sandbox for a pod of this name.
    pub async fn sandbox(&self, name: &str) -> (SandboxSpec, SandboxId) {
        let spec = self.sandbox_spec(name);
        let id = self.handles.sandboxes.run_sandbox(&spec).await;
        (spec, id.expect("sandbox"))
    }

    /// Creates a container of the sandbox that runs a shell script.
    pub async fn container(
        &self,
        (pod, sandbox): &(SandboxSpec, SandboxId),
        name: &str,
        script: &str,
    ) -> ContainerId {
        let request = ImageRequest {
            image: image::BUSYBOX.to_owned(),
            policy: PullPolicy::Never,
            pod: pod.name.clone(),
            runtime_handler: String::new(),
            credentials: Vec::new(),
        };
        let image = self.handles.images.ensure_image(&request, &|_| {}).await;
        let spec = self.container_spec(pod, name, script, image.expect("image").id);
        let sandboxes = &self.handles.sandboxes;
        let created = sandboxes.create_container(sandbox, &spec, pod).await;
        created.expect("container")
    }

    /// Creates and starts a container.
    pub async fn run(
        &self,
        pod: &(SandboxSpec, SandboxId),
        name: &str,
        script: &str,
    ) -> ContainerId {
        let id = self.container(pod, name, script).await;
        self.handles
            .sandboxes
            .start_container(&id)
            .await
            .expect("start");
        id
    }

    /// What `ctr` prints.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.containerd.ctr(arguments).expect("ctr");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn watch(&self, pod: &SandboxSpec) -> watch::Receiver<Arc<ObservedPod>> {
        self.handles.observer.watch(&pod.uid, &pod.name)
    }

    /// Ends the observer and all that the test started.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.await.expect("the tasks end");
        tokio::task::spawn_blocking(move || drop(self.containerd))
            .await
            .expect("containerd is gone");
    }

    fn sandbox_spec(&self, name: &str) -> SandboxSpec {
        let uid = PodUid::new(format!("uid-{name}"));
        let log_directory = format!("default_{name}_{uid}");
        SandboxSpec {
            labels: labels(name, &uid),
            uid,
            name: PodName::new("default", name),
            attempt: 0,
            hostname: String::new(),
            log_directory: self.containerd.path("pods").join(log_directory),
            dns: DnsSpec::default(),
            port_mappings: Vec::new(),
            annotations: BTreeMap::new(),
            cgroup_parent: self.containerd.cgroup().to_owned(),
            sysctls: BTreeMap::new(),
            namespaces: NAMESPACES,
            privileged: false,
            run_as_user: None,
            run_as_group: None,
            supplemental_groups: Vec::new(),
            groups_policy: GroupsPolicy::Merge,
            selinux: None,
            seccomp: SeccompProfile::Unconfined,
            resources: LinuxResources::default(),
            overhead: None,
            runtime_handler: String::new(),
        }
    }

    fn container_spec(
        &self,
        pod: &SandboxSpec,
        name: &str,
        script: &str,
        image: ImageId,
    ) -> ContainerSpec {
        let last_words = self.containerd.path(&format!("{}-{name}", pod.uid));
        std::fs::write(&last_words, "").expect("termination message file");
        let mut labels = pod.labels.clone();
        labels.insert(LABEL_CONTAINER_NAME.to_owned(), name.to_owned());
        ContainerSpec {
            name: name.to_owned(),
            attempt: 0,
            image,
            user_image: image::BUSYBOX.to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            args: vec![script.to_owned()],
            working_dir: String::new(),
            envs: vec![("GREETING".to_owned(), "hello".to_owned())],
            mounts: vec![MountSpec {
                container_path: "/last-words".to_owned(),
                host_path: last_words,
                read_only: false,
                recursive_read_only: false,
                propagation: MountPropagation::Private,
            }],
            labels,
            annotations: BTreeMap::from([
                (ANNOTATION_TERMINATION_PATH.into(), "/last-words".into()),
                (
                    ANNOTATION_TERMINATION_POLICY.into(),
                    "FallbackToLogsOnError".into(),
                ),
            ]),
            log_path: format!("{name}/0.log").into(),
            stdin: false,
            stdin_once: false,
            tty: false,
            resources: LinuxResources::default(),
            security: security(),
            process_target: None,
        }
    }
}

const NAMESPACES: Namespaces = Namespaces {
    network: NamespaceMode::Node,
    ipc: NamespaceMode::Pod,
    pid: NamespaceMode::Container,
    users: None,
};

fn labels(name: &str, uid: &PodUid) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_POD_NAME.to_owned(), name.to_owned()),
        (LABEL_POD_NAMESPACE.to_owned(), "default".to_owned()),
        (LABEL_POD_UID.to_owned(), uid.to_string()),
    ])
}

fn security() -> ContainerSecurity {
    ContainerSecurity {
        privileged: false,
        read_only_root: false,
        no_new_privs: false,
        run_as: RunAs::Uid(0),
        run_as_group: None,
        supplemental_groups: Vec::new(),
        groups_policy: GroupsPolicy::Merge,
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        seccomp: SeccompProfile::Unconfined,
        apparmor: String::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        namespaces: NAMESPACES,
        selinux: None,
    }
}
