use super::*;
use crate::pod::testing::{first, node, pod, with_spec};

const POD: &str = r#"
metadata:
  name: p
  namespace: shop
  uid: u-1
  labels: {app: web}
  annotations: {"example.com/note": "a ['b']"}
spec: {nodeName: node-1, serviceAccountName: robot, containers: []}
"#;

#[test]
fn fields() {
    let pod = pod(POD);
    let mut node = node();
    node.host_ips = vec!["192.0.2.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    let sandbox_ips = ["fd00::5".parse().unwrap(), "10.0.0.5".parse().unwrap()];
    let view = PodView {
        pod: &pod,
        sandbox_ips: &sandbox_ips,
        node: &node,
    };
    for (path, value) in [
        ("metadata.name", "p"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['example.com/note']", "a ['b']"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.10"),
        ("status.hostIPs", "192.0.2.10,fd00::a"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
    ] {
        assert_eq!(field(&view, path).unwrap(), value, "{path}");
    }
    for path in [
        "",
        "metadata.labels",
        "metadata.labels['a",
        "spec['x']",
        "status.phase",
    ] {
        assert!(field(&view, path).is_err(), "{path}");
    }
}

#[test]
fn addresses_that_are_not_there() {
    let pod = with_spec("{containers: []}");
    let mut node = node();
    node.host_ips.clear();
    let view = PodView {
        pod: &pod,
        sandbox_ips: &[],
        node: &node,
    };
    assert_eq!(field(&view, "status.podIP").unwrap(), "");
    assert_eq!(
        field(&view, "status.hostIP"),
        Err(DownwardError::HostIpUnknown)
    );
}

#[test]
fn on_the_hosts_network_the_hosts_addresses_are_the_pods() {
    let pod = with_spec("{hostNetwork: true, containers: []}");
    let node = node();
    let view = PodView {
        pod: &pod,
        sandbox_ips: &[],
        node: &node,
    };
    assert_eq!(view.pod_ips(), node.host_ips);
}

fn value(spec: &str, selector: &str) -> Result<String, String> {
    let pod = with_spec(spec);
    let selector: ResourceFieldSelector = serde_saphyr::from_str(selector).unwrap();
    let spec = pod.pod.spec.as_ref();
    let own = Some(first(&pod));
    resource(spec, own, &selector, &node().allocatable).map_err(|error| error.to_string())
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let spec = "{containers: [{name: a, resources: {
          requests: {cpu: 250m, memory: 100Mi, hugepages-2Mi: 4Mi},
          limits: {cpu: 1500m, memory: 200Mi}}},
        {name: b, resources: {requests: {cpu: 3}}}]}";
    for (selector, expected) in [
        ("{resource: requests.cpu}", "1"),
        ("{resource: requests.cpu, divisor: 1m}", "250"),
        ("{resource: requests.cpu, divisor: '0'}", "1"),
        ("{resource: limits.cpu}", "2"),
        ("{resource: limits.cpu, divisor: 100m}", "15"),
        ("{resource: requests.memory}", "104857600"),
        ("{resource: requests.memory, divisor: 1Mi}", "100"),
        ("{resource: limits.memory, divisor: 1G}", "1"),
        ("{resource: requests.ephemeral-storage}", "0"),
        ("{resource: requests.hugepages-2Mi, divisor: 1Mi}", "4"),
        ("{resource: limits.hugepages-2Mi}", "0"),
        ("{resource: requests.cpu, containerName: b}", "3"),
        ("{resource: limits.cpu, divisor: -1m}", "-1500"),
        ("{resource: limits.memory, divisor: 96Mi}", "3"),
    ] {
        assert_eq!(value(spec, selector), Ok(expected.into()), "{selector}");
    }
}

#[test]
fn a_limit_that_is_not_set_is_the_nodes_or_the_pods() {
    let bare = "{containers: [{name: a}]}";
    assert_eq!(
        value(bare, "{resource: limits.cpu, divisor: 1m}"),
        Ok("3900".into())
    );
    assert_eq!(
        value(bare, "{resource: limits.memory, divisor: 1Gi}"),
        Ok("7".into())
    );
    assert_eq!(
        value(bare, "{resource: limits.ephemeral-storage, divisor: 1Gi}"),
        Ok("90".into())
    );
    assert_eq!(value(bare, "{resource: requests.memory}"), Ok("0".into()));
    let by_pod = "{resources: {limits: {cpu: 2}}, containers: [{name: a}]}";
    assert_eq!(value(by_pod, "{resource: limits.cpu}"), Ok("2".into()));
}

#[test]
fn unknown_resources_are_refused() {
    let bare = "{containers: [{name: a}]}";
    for (selector, message) in [
        (
            "{resource: limits.gpu}",
            "unsupported container resource : limits.gpu",
        ),
        ("{resource: cpu}", "unsupported container resource : cpu"),
        (
            "{resource: used.cpu}",
            "unsupported container resource : used.cpu",
        ),
        (
            "{resource: limits.cpu, containerName: z}",
            "container z not found",
        ),
        (
            "{resource: limits.cpu, divisor: x}",
            "invalid divisor of limits.cpu",
        ),
    ] {
        assert_eq!(value(bare, selector), Err(message.into()));
    }
}

#[test]
fn a_file_names_the_container_it_tells_of() {
    let pod = with_spec(
        "{containers: [{name: a, resources: {limits: {cpu: 2}}}],
          initContainers: [{name: i, resources: {limits: {memory: 1Mi}}}]}",
    );
    let read = |selector: &str| {
        let selector: ResourceFieldSelector = serde_saphyr::from_str(selector).unwrap();
        let spec = pod.pod.spec.as_ref();
        resource(spec, None, &selector, &node().allocatable).map_err(|error| error.to_string())
    };
    for (selector, expected) in [
        ("{resource: limits.cpu, containerName: a}", Ok("2")),
        ("{resource: limits.memory, containerName: i}", Ok("1048576")),
        ("{resource: limits.cpu}", Err("container  not found")),
    ] {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(read(selector), expected, "{selector}");
    }
}
