use tonic::{Request, Response, Status};

use super::*;
use crate::runtime::cri::runtime_service_server::RuntimeService;
use crate::runtime::stub::{Nothing, Stub};

const DEADLINE: Duration = Duration::from_millis(300);

/// Does what the command's first word says.
struct Obedient;

#[tonic::async_trait]
impl RuntimeService for Obedient {
    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Result<Response<cri::ExecSyncResponse>, Status> {
        let request = request.into_inner();
        let answer = |stdout: Vec<u8>, exit_code| cri::ExecSyncResponse {
            stdout,
            stderr: b"complaints".to_vec(),
            exit_code,
        };
        match request.cmd[0].as_str() {
            "fail" => Ok(Response::new(answer(Vec::new(), 3))),
            "tell-limit" => Ok(Response::new(answer(request.timeout.to_string().into(), 0))),
            "much" => Ok(Response::new(cri::ExecSyncResponse {
                stdout: vec![b'o'; MAX_MESSAGE_BYTES],
                stderr: vec![b'e'; MAX_MESSAGE_BYTES],
                exit_code: 0,
            })),
            "take-long" => Err(Status::deadline_exceeded("timeout 1s exceeded")),
            "vanish" => Err(Status::not_found("no such container")),
            "hang" => std::future::pending().await,
            other => Err(Status::unknown(format!("no {other}"))),
        }
    }

    async fn exec(
        &self,
        request: Request<cri::ExecRequest>,
    ) -> Result<Response<cri::ExecResponse>, Status> {
        let url = request.into_inner().cmd.concat();
        Ok(Response::new(cri::ExecResponse { url }))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn how_a_command_ended_is_not_mixed_up() {
    let stub = Stub::serve(Obedient, Nothing);
    let client = stub.client(DEADLINE);
    let id = ContainerId("c".to_owned());
    let second = Some(Duration::from_secs(1));
    let run = |command: &str, limit| {
        let (client, id, command) = (client.clone(), id.clone(), words(command));
        async move { client.exec_sync(&id, &command, limit).await }
    };

    let failed = run("fail", second).await.expect("it ran");
    assert_eq!(
        (failed.exit_code, failed.stderr),
        (3, b"complaints".to_vec())
    );
    let too_long = run("take-long", second).await.expect_err("killed");
    assert!(
        matches!(too_long, ExecError::TimedOut { limit } if Some(limit) == second),
        "{too_long:?}"
    );
    let gone = run("vanish", second).await.expect_err("gone");
    assert!(
        matches!(gone, ExecError::Runtime(RuntimeError::NotFound { .. })),
        "{gone:?}"
    );
    let wrong = run("misspelt", None).await.expect_err("not there");
    assert!(
        matches!(wrong, ExecError::Runtime(RuntimeError::Refused { .. })),
        "{wrong:?}"
    );
    // A runtime that does not answer is not a command that takes long.
    let limit = Some(Duration::from_millis(100));
    let hung = run("hang", limit).await.expect_err("hung");
    assert!(
        matches!(hung, ExecError::Runtime(RuntimeError::Timeout { .. })),
        "{hung:?}"
    );
    let much = run("much", None).await.expect("both outputs, uncut");
    assert_eq!(much.stdout.len() + much.stderr.len(), 2 * MAX_MESSAGE_BYTES);
}

#[tokio::test]
async fn limits_are_whole_seconds_and_never_none_by_accident() {
    let stub = Stub::serve(Obedient, Nothing);
    let client = stub.client(DEADLINE);
    let id = ContainerId("c".to_owned());
    let cases = [
        (None, "0"),
        (Some(Duration::ZERO), "1"),
        (Some(Duration::from_millis(1)), "1"),
        (Some(Duration::from_secs(5)), "5"),
        (Some(Duration::from_millis(5001)), "6"),
    ];
    for (limit, wanted) in cases {
        let told = client.exec_sync(&id, &words("tell-limit"), limit).await;
        assert_eq!(
            told.expect("told").stdout,
            wanted.as_bytes(),
            "limit {limit:?}"
        );
    }
}

#[tokio::test]
async fn an_address_must_have_a_host() {
    let stub = Stub::serve(Obedient, Nothing);
    let client = stub.client(DEADLINE);
    let id = ContainerId("c".to_owned());
    let ask = |url: &str| {
        let (client, id, command) = (client.clone(), id.clone(), words(url));
        async move { client.exec(&id, &command, StdStreams::default()).await }
    };
    let url = ask("http://127.0.0.1:40000/exec/secret")
        .await
        .expect("url");
    assert_eq!(url.uri().path(), "/exec/secret");
    assert_eq!(format!("{url:?}"), "StreamUrl(127.0.0.1:40000)");
    for bad in ["", "/exec/secret", "http://", "no url at all"] {
        let error = ask(bad).await.expect_err(bad);
        assert!(
            matches!(error, RuntimeError::Invalid { .. }),
            "{bad}: {error:?}"
        );
    }
}
