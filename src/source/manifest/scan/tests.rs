use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::pod::Origin;

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: c, image: i}}\n"
    )
}

fn scanner(dir: &TempDir) -> Scanner {
    Scanner::new(dir.path().to_owned(), Kinds::Pods, "Node".into())
}

fn names(snapshot: &ManifestSnapshot) -> Vec<String> {
    let mut names: Vec<_> = snapshot
        .pods
        .values()
        .map(|pod| pod.name.name.to_string())
        .collect();
    names.sort();
    names
}

/// Problems without the directory, for people.
fn problems(dir: &TempDir, snapshot: &ManifestSnapshot) -> Vec<String> {
    let prefix = format!("{}/", dir.path().display());
    let shown = snapshot.problems.iter().map(|problem| problem.to_string());
    shown.map(|text| text.replace(&prefix, "")).collect()
}

fn files(names: &[(&str, Writing)]) -> Scope {
    Scope::Files(
        names
            .iter()
            .map(|(name, writing)| (OsString::from(name), *writing))
            .collect(),
    )
}

#[test]
fn only_plain_visible_files_count() {
    let dir = TempDir::new().expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("a.yaml", &manifest("a"));
    write(".hidden.yaml", &manifest("hidden"));
    write(".a.yaml.swp", "b0VIM");
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    write("sub/b.yaml", &manifest("b"));
    symlink("sub/b.yaml", dir.path().join("link.yaml")).expect("a link");
    symlink("nowhere", dir.path().join("dangling.yaml")).expect("a link");
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    symlink("/dev/zero", dir.path().join("zero")).expect("a link");
    let snapshot = scanner(&dir).scan(&Scope::All);
    assert!(snapshot.synced);
    assert_eq!(names(&snapshot), ["a-node", "b-node"]);
    assert_eq!(
        problems(&dir, &snapshot),
        [
            "dangling.yaml: cannot be read: No such file or directory (os error 2)",
            "fifo: is not a regular file",
            "zero: is not a regular file",
        ]
    );
}

#[test]
fn a_file_that_turns_bad_keeps_its_pod_until_it_is_gone() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("a.yaml");
    let mut scanner = scanner(&dir);
    fs::write(&file, manifest("a")).expect("written");
    let good = scanner.scan(&Scope::All);

    fs::write(&file, "kind: Pod\nmetadata: {").expect("written");
    let bad = scanner.scan(&Scope::All);
    assert_eq!(bad.pods, good.pods);
    assert_eq!(
        problems(&dir, &bad),
        ["a.yaml:2:11: unclosed bracket '{' (the last good version stays in force)"]
    );

    fs::remove_file(&file).expect("removed");
    assert_eq!(
        scanner.scan(&Scope::All),
        ManifestSnapshot {
            synced: true,
            ..ManifestSnapshot::default()
        }
    );
    // A bad file that never was good is no pod.
    fs::write(&file, "kind: Pod\nmetadata: {").expect("written");
    let bad = scanner.scan(&Scope::All);
    assert_eq!(problems(&dir, &bad), ["a.yaml:2:11: unclosed bracket '{'"]);
    assert!(bad.pods.is_empty());
}

#[test]
fn all_validation_errors_come_at_once_with_their_places() {
    let dir = TempDir::new().expect("a directory");
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: Web
spec:
  serviceAccountName: x
  containers:
  - name: c
    resources:
      limits:
        cpu: fast
    volumeMounts:
    - {name: v, mountPath: /v}
";
    fs::write(dir.path().join("a"), text).expect("written");
    let snapshot = scanner(&dir).scan(&Scope::All);
    insta::assert_snapshot!(problems(&dir, &snapshot).join("\n"), @r#"
    a:4:3: metadata.name: Invalid value: "Web-node": must consist of lower case alphanumeric characters, '-' or '.', and every part must start and end with an alphanumeric character
    a:8:5: spec.containers[0].image: Required value
    a:11:9: spec.containers[0].resources.limits[cpu]: Invalid value: "fast": must be a number with an optional suffix such as m, k, Mi or Gi
    a:13:8: spec.containers[0].volumeMounts[0].name: Not found: "v"
    a:6:3: spec.serviceAccountName: Forbidden: static pods may not reference serviceaccounts
    "#);
}

#[test]
fn the_first_file_of_a_name_or_uid_wins() {
    let dir = TempDir::new().expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("b.yaml", &manifest("web"));
    write("a.yaml", &manifest("web"));
    write(
        "c.yaml",
        &manifest("db").replace("name: db", "name: db, uid: same"),
    );
    write(
        "d.yaml",
        &manifest("queue").replace("name: queue", "name: queue, uid: same"),
    );
    let mut scanner = scanner(&dir);
    let both = scanner.scan(&Scope::All);
    assert_eq!(names(&both), ["db-node", "web-node"]);
    let prefix = dir.path().display();
    assert_eq!(
        problems(&dir, &both).join("\n"),
        format!(
            "b.yaml: pod default/web-node is already defined by {prefix}/a.yaml\n\
             d.yaml: uid same is already taken by {prefix}/c.yaml"
        )
        .replace(&format!("{prefix}/"), "")
    );
    // The loser steps in when the winner goes.
    fs::remove_file(dir.path().join("a.yaml")).expect("removed");
    let one = scanner.scan(&Scope::All);
    assert_eq!(names(&one), ["db-node", "web-node"]);
    assert_ne!(one.pods, both.pods);
}

#[test]
fn an_untouched_file_is_not_opened_and_a_touched_one_not_parsed() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("a.yaml");
    fs::write(&path, manifest("a")).expect("written");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let age = |path: &Path| {
        let file = File::options().write(true).open(path).expect("opens");
        file.set_modified(long_ago).expect("sets");
    };
    age(&path);
    let Content::Read { stamp, .. } = read(&path, None) else {
        panic!("not read")
    };
    assert!(stamp.is_some(), "an old file's stamp can be relied upon");
    assert!(matches!(read(&path, stamp), Content::Unchanged));

    let mut scanner = scanner(&dir);
    let before = scanner.scan(&Scope::All);
    fs::write(&path, manifest("a")).expect("written again, the same");
    let after = scanner.scan(&Scope::All);
    let pointer = |snapshot: &ManifestSnapshot| {
        Arc::as_ptr(&snapshot.pods.values().next().expect("a pod").pod)
    };
    assert_eq!(pointer(&before), pointer(&after));

    // Fresh times prove nothing: the next write may fall into the same tick.
    let Content::Read { stamp, .. } = read(&path, None) else {
        panic!("not read")
    };
    assert_eq!(stamp, None);
}

#[test]
fn half_written_files_are_no_news() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("a.yaml");
    let mut scanner = scanner(&dir);
    scanner.scan(&Scope::All);
    fs::write(&path, "").expect("created");
    let started = scanner.scan(&files(&[("a.yaml", Writing::Unknown)]));
    assert_eq!(problems(&dir, &started), [""; 0]);
    let ended = scanner.scan(&files(&[("a.yaml", Writing::Finished)]));
    assert_eq!(problems(&dir, &ended), ["a.yaml: holds no object"]);
    fs::write(&path, manifest("a")).expect("written");
    let good = scanner.scan(&files(&[("a.yaml", Writing::Unknown)]));
    assert_eq!(
        (names(&good), problems(&dir, &good)),
        (vec!["a-node".to_owned()], vec![])
    );
}

#[test]
fn an_edit_is_a_new_pod_unless_it_keeps_its_uid() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("a.yaml");
    let mut scanner = scanner(&dir);
    let mut first_uid_and_seen = |text: &str| {
        fs::write(&path, text).expect("written");
        let snapshot = scanner.scan(&Scope::All);
        let pod = Arc::clone(snapshot.pods.values().next().expect("a pod"));
        let annotations = pod.pod.metadata.annotations.clone().expect("annotations");
        (pod.uid.clone(), annotations[CONFIG_SEEN].clone())
    };
    let (first, _) = first_uid_and_seen(&manifest("a"));
    let (second, _) = first_uid_and_seen(&manifest("a").replace("image: i", "image: j"));
    assert_ne!(first, second);
    let with_uid = manifest("a").replace("name: a", "name: a, uid: mine");
    let (third, seen) = first_uid_and_seen(&with_uid);
    let (fourth, still_seen) = first_uid_and_seen(&with_uid.replace("image: i", "image: j"));
    assert_eq!((third.as_str(), fourth.as_str()), ("mine", "mine"));
    assert_eq!(seen, still_seen);
}

#[test]
fn too_much_is_not_read() {
    let dir = TempDir::new().expect("a directory");
    let file = File::create(dir.path().join("big")).expect("created");
    file.set_len(MAX_MANIFEST_BYTES + 1).expect("sparse");
    let snapshot = scanner(&dir).scan(&Scope::All);
    assert_eq!(
        problems(&dir, &snapshot),
        ["big: is larger than 10485760 bytes"]
    );
}

#[test]
fn the_path_may_be_one_file_or_nothing_or_nonsense() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("pod.yaml");
    let mut scanner = Scanner::new(path.clone(), Kinds::Pods, "node".into());
    assert!(scanner.scan(&Scope::All).synced, "no path, no pods, known");
    fs::write(&path, manifest("a")).expect("written");
    assert_eq!(names(&scanner.scan(&Scope::All)), ["a-node"]);
    fs::remove_file(&path).expect("removed");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let odd = scanner.scan(&Scope::All);
    assert_eq!(names(&odd), ["a-node"], "not knowing ends no pod");
    assert_eq!(odd.problems.len(), 1);
    fs::remove_file(&path).expect("removed");
    assert_eq!(names(&scanner.scan(&Scope::All)), [""; 0]);

    let mut never = Scanner::new("/dev/null".into(), Kinds::Pods, "node".into());
    assert!(!never.scan(&Scope::All).synced);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn removing_a_file_removes_exactly_its_pod(
        ids in prop::collection::btree_set(0..30_u8, 1..8),
        pick in any::<prop::sample::Index>(),
        rescan in any::<bool>(),
    ) {
        let dir = TempDir::new().expect("a directory");
        for id in &ids {
            let path = dir.path().join(format!("{id}.yaml"));
            fs::write(path, manifest(&format!("p{id}"))).expect("written");
        }
        let mut scanner = scanner(&dir);
        let before = scanner.scan(&Scope::All);
        prop_assert_eq!(before.pods.len(), ids.len());

        let ids: Vec<_> = ids.into_iter().collect();
        let gone = format!("{}.yaml", pick.get(&ids));
        fs::remove_file(dir.path().join(&gone)).expect("removed");
        let scope = if rescan { Scope::All } else { files(&[(&gone, Writing::Finished)]) };
        let after = scanner.scan(&scope);
        let mut expected = (*before.pods).clone();
        expected.retain(|_, pod| pod.origin != Origin::Static { path: dir.path().join(&gone) });
        prop_assert_eq!(&*after.pods, &expected);
        for (uid, pod) in after.pods.iter() {
            prop_assert!(Arc::ptr_eq(pod, &before.pods[uid]));
        }
    }
}

#[test]
fn services_lie_beside_pods_where_there_is_no_api_server() {
    let dir = TempDir::new().expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  ports:\n  - port: {port}\n"
        )
    };
    write("a.yaml", &service("80"));
    write("b.yaml", &service("81"));
    write("c.yaml", &service("0").replace("web", "bad"));
    let mut with_data = Scanner::new(dir.path().to_owned(), Kinds::PodsAndData, "node".into());
    let snapshot = with_data.scan(&Scope::All);
    let found: Vec<_> = snapshot
        .services
        .iter()
        .map(|(name, service)| {
            let spec = service.spec.as_ref().expect("a spec");
            format!("{name} {}", spec.ports.as_ref().expect("ports")[0].port)
        })
        .collect();
    assert_eq!(found, ["default/web 80"]);
    assert_eq!(
        problems(&dir, &snapshot),
        [
            "b.yaml: object web is already defined by a.yaml",
            "c.yaml:7:5: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535",
        ]
    );
    let snapshot = scanner(&dir).scan(&Scope::All);
    assert!(snapshot.services.is_empty());
    assert_eq!(snapshot.problems.len(), 3);
}
