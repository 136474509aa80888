use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn all_followers_of_a_directory_are_told() {
    let dir = tempfile::tempdir().expect("directory");
    let other = tempfile::tempdir().expect("directory");
    let (changes, task) = LogChanges::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(task.run(stop.clone()));
    let mut first = changes.watch(dir.path());
    let mut second = changes.watch(dir.path());
    let mut elsewhere = changes.watch(other.path());
    assert_eq!(changes.shared.lock().len(), 2);

    std::fs::write(dir.path().join("0.log"), "text").expect("written");
    tokio::time::timeout(PATIENCE, first.next())
        .await
        .expect("told");
    tokio::time::timeout(PATIENCE, second.next())
        .await
        .expect("told");
    let quiet = tokio::time::timeout(BATCH * 3, elsewhere.next()).await;
    assert!(quiet.is_err());

    drop(first);
    assert_eq!(changes.shared.lock().len(), 2);
    drop(second);
    drop(elsewhere);
    assert_eq!(changes.shared.lock().len(), 0);
    stop.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn whose_directory_goes_looks_for_himself() {
    let dir = tempfile::tempdir().expect("directory");
    let (changes, task) = LogChanges::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(task.run(stop.clone()));
    let mut follower = changes.watch(dir.path());
    dir.close().expect("removed");
    tokio::time::timeout(PATIENCE, follower.next())
        .await
        .expect("told");
    assert!(follower.heard.is_none());
    drop(follower);
    let mut of_nothing = changes.watch(Path::new("/nonexistent"));
    assert!(of_nothing.heard.is_none());
    tokio::time::timeout(PATIENCE, of_nothing.next())
        .await
        .expect("polls");
    stop.cancel();
    running.await.expect("no panic");
}
