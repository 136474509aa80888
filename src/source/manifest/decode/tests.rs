use super::*;

#[test]
fn probe() {
    for text in [
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  lables: {}\nspec:\n  containers:\n  - name: c\n    image: i\n    resources: {limits: {cpu: 1, memory: 0.5}}\n    volumMounts:\n    - x\n    env:\n    - {name: A, value: 5}\n    - {name: B, value: yes}\n  volumes:\n  - name: v\n    downwardAPI: {defaultMode: 0644}\n  hostNetwork: yes\n  hostPID: \"true\"\n  securityContext:\n    runAsUser: \"5\"\n",
        "apiVersion: v1\nkind: Service\nmetadata: {}\n",
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: x}\n---\n",
        "---\n# c\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: x}\n---\nkind: Service\n",
        "---\n# c\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: x}\n",
        "",
        "# only\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nkind: Pod\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: [1]\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers: 5\n",
        "apiVersion: v1\nkind: Pod\nspec:\n   containers:\n  - name: [1]\n",
        "apiVersion: v1\nkind: Pod\nspec:\n\t containers:\n  - name: [1]\n",
        "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"metadata\":{\"name\":\"x\"}, \"spec\": {\"containers\": [{\"name\":\"\\u00e9\", \"image\": null}],}",
        "just text\n",
        "- 1\n- 2\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: x\n    ports:\n    - containerPort: abc\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: x\n    ports:\n    - containerPort: 99999999999\n",
        "kind: Pod\napiVersion: v1\nmetadata:\n  annotations: *a\n",
        "kind: Pod\napiVersion: v1\nmetadata:\n  annotations: {x: 'abc\n",
    ] {
        match decode(text.as_bytes()) {
            Ok(d) => println!(
                "OK {} {:?}",
                serde_json::to_string(&d.pod).unwrap(),
                d.unknown
            ),
            Err(f) => println!("ERR {:?} {}", f.position, f.reason),
        }
    }
}
