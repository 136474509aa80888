//! What a container finds: environment, arguments, user, working directory.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use serde_json::{Value, json};

use crate::harness::{Scene, Test, container, shell, tests, text};

pub const TESTS: &[Test] = tests!(Shared:
    values_and_references_reach_the_environment,
    fields_of_the_pod_reach_the_environment,
    resources_reach_the_environment,
    config_maps_and_secrets_reach_the_environment,
    services_reach_the_environment,
    a_missing_config_map_holds_the_container_until_it_comes,
    command_and_arguments_are_expanded,
    the_working_directory_and_user_are_the_given_ones,
);

/// Runs a pod that prints its environment; gives it as lines `NAME=value`.
async fn environment(t: &Scene, change: impl FnOnce(&mut Value)) -> anyhow::Result<Vec<String>> {
    let mut main = shell("main", "env");
    change(&mut main);
    let (_, log) = t
        .run_to_end("print", json!({ "containers": [main] }))
        .await?;
    Ok(log.lines().map(str::to_owned).collect())
}

fn ensure_has(environment: &[String], wanted: &[&str]) -> anyhow::Result<()> {
    for line in wanted {
        ensure!(
            environment.iter().any(|have| have == line),
            "no {line} in {environment:#?}"
        );
    }
    Ok(())
}

async fn values_and_references_reach_the_environment(t: Scene) -> anyhow::Result<()> {
    let environment = environment(&t, |main| {
        main["env"] = json!([
            { "name": "PLAIN", "value": "a b" },
            { "name": "EMPTY", "value": "" },
            { "name": "COMPOSED", "value": "<$(PLAIN)>" },
            { "name": "ESCAPED", "value": "$$(PLAIN)" },
            { "name": "UNKNOWN", "value": "$(NOWHERE)" },
            { "name": "EARLY", "value": "$(LATE)" },
            { "name": "LATE", "value": "late" },
        ]);
    })
    .await?;
    ensure_has(
        &environment,
        &[
            "PLAIN=a b",
            "EMPTY=",
            "COMPOSED=<a b>",
            "ESCAPED=$(PLAIN)",
            "UNKNOWN=$(NOWHERE)",
            "EARLY=$(LATE)",
            "LATE=late",
        ],
    )
}

async fn fields_of_the_pod_reach_the_environment(t: Scene) -> anyhow::Result<()> {
    let fields = [
        ("NAME", "metadata.name"),
        ("NAMESPACE", "metadata.namespace"),
        ("UID_OF_POD", "metadata.uid"),
        ("LABEL", "metadata.labels['colour']"),
        ("ANNOTATION", "metadata.annotations['note']"),
        ("NODE", "spec.nodeName"),
        ("ACCOUNT", "spec.serviceAccountName"),
        ("HOST_IP", "status.hostIP"),
        ("POD_IP", "status.podIP"),
        ("POD_IPS", "status.podIPs"),
    ];
    let reference =
        |(name, path)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut main = shell("main", "env");
    main["env"] = fields.into_iter().map(reference).collect();
    let pod = json!({
        "metadata": { "labels": { "colour": "blue" }, "annotations": { "note": "a b" } },
        "spec": { "restartPolicy": "Never", "containers": [main] },
    });
    t.apply::<Pod>("fields", pod).await?;
    let succeeded = |pod: &Value| text(pod, "/status/phase") == "Succeeded";
    let pod = t.pod_until("fields", "has succeeded", succeeded).await?;
    let log = t.log(&pod, "main", 0).await?;
    let environment: Vec<String> = log.lines().map(str::to_owned).collect();
    let ip = text(&pod, "/status/podIP");
    ensure!(!ip.is_empty(), "{}", pod["status"]);
    ensure_has(
        &environment,
        &[
            "NAME=fields",
            &format!("NAMESPACE={}", t.namespace),
            &format!("UID_OF_POD={}", text(&pod, "/metadata/uid")),
            "LABEL=blue",
            "ANNOTATION=a b",
            &format!("NODE={}", t.cluster.node_name()),
            "ACCOUNT=default",
            &format!("HOST_IP={}", t.cluster.fact("NODE_IP")),
            &format!("POD_IP={ip}"),
            &format!("POD_IPS={ip}"),
        ],
    )
}

async fn resources_reach_the_environment(t: Scene) -> anyhow::Result<()> {
    let reference = |name: &str, resource: &str, divisor: &str| {
        let reference = json!({ "resource": resource, "divisor": divisor });
        json!({ "name": name, "valueFrom": { "resourceFieldRef": reference } })
    };
    let environment = environment(&t, |main| {
        main["resources"] = json!({
            "requests": { "cpu": "100m", "memory": "32Mi" },
            "limits": { "cpu": "250m", "memory": "64Mi" },
        });
        main["env"] = json!([
            reference("CPU_LIMIT", "limits.cpu", "0"),
            reference("CPU_LIMIT_M", "limits.cpu", "1m"),
            reference("CPU_REQUEST_M", "requests.cpu", "1m"),
            reference("MEMORY_LIMIT", "limits.memory", "0"),
            reference("MEMORY_REQUEST_MI", "requests.memory", "1Mi"),
        ]);
    })
    .await?;
    ensure_has(
        &environment,
        &[
            "CPU_LIMIT=1",
            "CPU_LIMIT_M=250",
            "CPU_REQUEST_M=100",
            "MEMORY_LIMIT=67108864",
            "MEMORY_REQUEST_MI=32",
        ],
    )
}

async fn config_maps_and_secrets_reach_the_environment(t: Scene) -> anyhow::Result<()> {
    let map = json!({ "data": { "colour": "green", "SHAPE": "round" } });
    t.apply::<ConfigMap>("settings", map).await?;
    t.apply::<Secret>("keys", json!({ "stringData": { "password": "s3cret" } }))
        .await?;
    let environment = environment(&t, |main| {
        main["envFrom"] = json!([
            { "configMapRef": { "name": "settings" } },
            { "prefix": "P_", "secretRef": { "name": "keys" } },
            { "configMapRef": { "name": "absent", "optional": true } },
        ]);
        let of_map = json!({ "name": "settings", "key": "colour" });
        let of_secret = json!({ "name": "keys", "key": "password" });
        let optional = json!({ "name": "settings", "key": "absent", "optional": true });
        main["env"] = json!([
            { "name": "SHAPE", "value": "square" },
            { "name": "COLOUR", "valueFrom": { "configMapKeyRef": of_map } },
            { "name": "PASSWORD", "valueFrom": { "secretKeyRef": of_secret } },
            { "name": "ABSENT", "valueFrom": { "configMapKeyRef": optional } },
            { "name": "COMPOSED", "value": "$(COLOUR) $(P_password)" },
        ]);
    })
    .await?;
    ensure_has(
        &environment,
        &[
            "colour=green",
            "SHAPE=square",
            "COLOUR=green",
            "PASSWORD=s3cret",
            "P_password=s3cret",
            "COMPOSED=green s3cret",
        ],
    )?;
    ensure!(
        !environment.iter().any(|line| line.starts_with("ABSENT=")),
        "{environment:#?}"
    );
    Ok(())
}

async fn services_reach_the_environment(t: Scene) -> anyhow::Result<()> {
    let spec = json!({
        "selector": { "app": "none" },
        "ports": [{ "name": "http", "port": 80 }, { "name": "dns-udp", "port": 53, "protocol": "UDP" }],
    });
    let service = t
        .apply::<Service>("my-web", json!({ "spec": spec }))
        .await?;
    let ip = text(&service, "/spec/clusterIP");
    let mut wanted: Vec<String> = [
        ("SERVICE_HOST", ip.to_owned()),
        ("SERVICE_PORT", "80".to_owned()),
        ("SERVICE_PORT_HTTP", "80".to_owned()),
        ("SERVICE_PORT_DNS_UDP", "53".to_owned()),
        ("PORT", format!("tcp://{ip}:80")),
        ("PORT_80_TCP", format!("tcp://{ip}:80")),
        ("PORT_80_TCP_PROTO", "tcp".to_owned()),
        ("PORT_80_TCP_PORT", "80".to_owned()),
        ("PORT_80_TCP_ADDR", ip.to_owned()),
        ("PORT_53_UDP", format!("udp://{ip}:53")),
    ]
    .into_iter()
    .map(|(name, value)| format!("MY_WEB_{name}={value}"))
    .collect();
    wanted.push("KUBERNETES_SERVICE_PORT=443".to_owned());
    wanted.push("KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned());
    // The node hears of a new Service a moment after the API server took it; the pod that
    // asks is sent after that moment.
    let mut last = anyhow::Ok(());
    for attempt in 0..5 {
        let spec = json!({ "containers": [shell("main", "env")] });
        let (_, log) = t.run_to_end(&format!("print-{attempt}"), spec).await?;
        let environment: Vec<String> = log.lines().map(str::to_owned).collect();
        last = ensure_has(
            &environment,
            &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn a_missing_config_map_holds_the_container_until_it_comes(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", "echo $COLOUR; exec sleep 1000000");
    let reference = json!({ "name": "settings", "key": "colour" });
    main["env"] = json!([{ "name": "COLOUR", "valueFrom": { "configMapKeyRef": reference } }]);
    t.pod("waits", json!({ "containers": [main] })).await?;
    let waits = |pod: &Value| {
        text(container(pod, "main"), "/state/waiting/reason") == "CreateContainerConfigError"
    };
    let pod = t
        .pod_until("waits", "waits for its ConfigMap", waits)
        .await?;
    let message = text(container(&pod, "main"), "/state/waiting/message");
    ensure!(message == r#"configmap "settings" not found"#, "{message}");
    let error = r#"Error: configmap "settings" not found"#;
    t.event("waits", "Failed", |message| message == error)
        .await?;
    t.apply::<ConfigMap>("settings", json!({ "data": { "colour": "red" } }))
        .await?;
    let ready = |pod: &Value| container(pod, "main")["ready"] == true;
    let pod = t.pod_until("waits", "runs", ready).await?;
    t.log_until(&pod, "main", "red").await?;
    Ok(())
}

async fn command_and_arguments_are_expanded(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", "");
    main["env"] = json!([{ "name": "WHO", "value": "world" }]);
    main["command"] = json!(["echo", "hello $(WHO)"]);
    main["args"] = json!(["$$(WHO)", "$(NOBODY)"]);
    let (_, log) = t
        .run_to_end("echo", json!({ "containers": [main] }))
        .await?;
    ensure!(log == "hello world $(WHO) $(NOBODY)\n", "{log}");
    Ok(())
}

async fn the_working_directory_and_user_are_the_given_ones(t: Scene) -> anyhow::Result<()> {
    let mut main = shell("main", "pwd; id -u; id -g");
    main["workingDir"] = "/var/www".into();
    main["securityContext"] = json!({ "runAsUser": 1234, "runAsGroup": 5678 });
    let (_, log) = t.run_to_end("who", json!({ "containers": [main] })).await?;
    ensure!(log == "/var/www\n1234\n5678\n", "{log}");
    Ok(())
}
