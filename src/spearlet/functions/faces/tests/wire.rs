//! The gRPC services of both versions of the original.

use super::*;
use api::proto::spearlet::{
    self as wire, CancelExecutionRequest, DeleteTaskRequest, DestroyInstanceRequest, ExecutionMode, ExecutionStatus,
    GetExecutionRequest, GetExecutionStatusRequest, GetHealthRequest, GetStatsRequest, GetTaskRequest,
    InvokeFunctionRequest, InvokeRequest, ListExecutionsRequest, ListNodeExecutionsRequest, ListTasksRequest,
    execution_service_client::ExecutionServiceClient, function_service_client::FunctionServiceClient,
    instance_service_client::InstanceServiceClient, invocation_service_client::InvocationServiceClient,
};
use tonic::{Code, Request};

type Functions = FunctionServiceClient<net::channel::Channel>;

fn by_id(task: TaskId) -> InvokeFunctionRequest {
    InvokeFunctionRequest { task_id: task.to_string(), ..Default::default() }
}

fn parameter(name: &str, value: &'static str) -> wire::FunctionParameter {
    wire::FunctionParameter { name: name.to_owned(), value: Some(api::wire::data(&value.into())), ..Default::default() }
}

fn output(result: &wire::ExecutionResult) -> &str {
    let any = result.result.as_ref().unwrap();
    assert_eq!(any.type_url, "type.googleapis.com/spearlet.ExecutionData");
    std::str::from_utf8(&any.value).unwrap()
}

#[tokio::test]
async fn the_first_interface_calls_functions_with_input_arguments_and_environment() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let mut request = by_id(node.task("echo"));
    request.parameters = vec![parameter("input", "hello")];
    let answer = client.invoke_function(request).await.unwrap().into_inner();
    assert!(answer.success, "{answer:?}");
    let result = answer.result.unwrap();
    assert_eq!((result.status(), output(&result)), (ExecutionStatus::Completed, "hello"));
    assert_eq!(result.metrics["exit_code"], "0");
    assert!(result.started_at.is_some() && result.completed_at.is_some());

    let mut request = by_id(node.task("args"));
    request.parameters = vec![parameter("a", "1"), parameter("b", "2")];
    request.function_name = "add".to_owned();
    let answer = client.invoke_function(request).await.unwrap().into_inner();
    assert_eq!(output(&answer.result.unwrap()), "add 1 2");
    // Once it is loaded it can be called by its name, too.
    let named = InvokeFunctionRequest { task_name: "args".to_owned(), ..Default::default() };
    assert!(client.invoke_function(named).await.unwrap().into_inner().success);

    let mut request = by_id(node.task("env A"));
    request.context =
        Some(wire::ExecutionContext { environment: [("A".into(), "x".into())].into(), ..Default::default() });
    let answer = client.invoke_function(request).await.unwrap().into_inner();
    assert_eq!(output(&answer.result.unwrap()), "x");

    let failed = client.invoke_function(by_id(node.task("exit 3"))).await.unwrap().into_inner();
    assert!(!failed.success && failed.message.contains("exit code 3"), "{failed:?}");
    let result = failed.result.unwrap();
    assert_eq!((result.status(), &*result.error_code), (ExecutionStatus::Failed, "EXIT"));
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_called_has_a_status_of_its_own() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let hold = node.task_with("hold", &[("concurrency", "1"), ("queue", "0")]);
    let refused = async |request: InvokeFunctionRequest| client.clone().invoke_function(request).await.unwrap_err();
    assert_eq!(refused(by_id(TaskId::new())).await.code(), Code::NotFound);
    assert_eq!(refused(InvokeFunctionRequest::default()).await.code(), Code::InvalidArgument);
    assert_eq!(refused(by_id(node.task("refuse"))).await.code(), Code::InvalidArgument);
    let new = InvokeFunctionRequest { invocation_type: wire::InvocationType::NewTask.into(), ..by_id(hold) };
    let new = refused(new).await;
    assert!(new.code() == Code::Unimplemented && new.message().contains("registry"), "{new:?}");
    let stream = InvokeFunctionRequest { execution_mode: ExecutionMode::Stream.into(), ..by_id(hold) };
    assert!(refused(stream).await.message().contains("StreamFunction"));
    let context = |timeout_ms| Some(wire::ExecutionContext { timeout_ms, ..Default::default() });
    let late = refused(InvokeFunctionRequest { context: context(20), ..by_id(hold) }).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(
        refused(InvokeFunctionRequest { context: context(-1), ..by_id(hold) }).await.code(),
        Code::InvalidArgument
    );
    let mut bad = parameter("a", "x");
    bad.value.as_mut().unwrap().type_url = "type.googleapis.com/google.protobuf.DoubleValue".to_owned();
    let bad = refused(InvokeFunctionRequest { parameters: vec![bad], ..by_id(hold) }).await;
    assert!(bad.code() == Code::InvalidArgument && bad.message().contains("parameters[0].value"), "{bad:?}");

    let held = tokio::spawn(node.raw(hold, "").send());
    node.stage.holds(1).await;
    let busy = refused(by_id(hold)).await;
    assert_eq!(busy.code(), Code::ResourceExhausted);
    assert_eq!(api::wire::retry_of(&busy).map(|after| after.as_secs() >= 1), Some(true));
    node.stage.release();
    held.await.unwrap().unwrap();
    let large = parameter("input", Box::leak("x".repeat(9 << 20).into_boxed_str()));
    let large = client.invoke_function(InvokeFunctionRequest { parameters: vec![large], ..by_id(hold) }).await;
    assert_eq!(large.unwrap_err().code(), Code::OutOfRange, "the message is over its limit");
    node.stop().await;
}

#[tokio::test]
async fn a_streamed_answer_comes_in_pieces_and_its_last_message_tells_the_end() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let mut pieces = client.stream_function(by_id(node.task("begun hold"))).await.unwrap().into_inner();
    let first = pieces.message().await.unwrap().unwrap();
    assert_eq!((first.status(), first.is_final), (ExecutionStatus::Running, false));
    assert_eq!(first.chunk_data.unwrap().value, b"begun");
    node.stage.holds(1).await;
    node.stage.release();
    assert_eq!(pieces.message().await.unwrap().unwrap().chunk_data.unwrap().value, b"held");
    let last = pieces.message().await.unwrap().unwrap();
    assert_eq!((last.status(), last.is_final, &*last.metadata["exit_code"]), (ExecutionStatus::Completed, true, "0"));
    assert!(pieces.message().await.unwrap().is_none());

    let mut pieces = client.stream_function(by_id(node.task("begun stop"))).await.unwrap().into_inner();
    assert!(!pieces.message().await.unwrap().unwrap().is_final);
    let last = pieces.message().await.unwrap().unwrap();
    assert_eq!((last.status(), &*last.metadata["reason"]), (ExecutionStatus::Failed, "trap"));
    assert_eq!(last.error_message, "trap: unreachable");
    // A long answer comes in messages of a size that clients take.
    let mut pieces = client.stream_function(by_id(node.task("flood 1000000"))).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes += piece.chunk_data.map_or(0, |data| data.value.len());
    }
    assert_eq!(bytes, 1_000_000);
    let missing = client.stream_function(by_id(TaskId::new())).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    node.stop().await;
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_the_call() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let mut pieces = client.stream_function(by_id(node.task("begun hold"))).await.unwrap().into_inner();
    pieces.message().await.unwrap().unwrap();
    node.stage.holds(1).await;
    drop(pieces);
    node.stage.cancels(1).await;
    let task = node.task("hold");
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.invoke_function(by_id(task)).await });
    node.stage.holds(1).await;
    call.abort();
    node.stage.cancels(2).await;
    node.until("/monitoring/stats", |stats| stats["active_executions"] == 0).await;
    node.stop().await;
}

#[tokio::test]
async fn executions_are_looked_at_cancelled_and_listed() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let (echo, hold, id) = (node.task("whine say hello"), node.task("hold"), types::ExecutionId::new());
    let done = client.invoke_function(by_id(echo)).await.unwrap().into_inner();
    let status = |id: String| GetExecutionStatusRequest { execution_id: id, include_result: true, include_logs: true };
    let seen = client.get_execution_status(status(done.execution_id)).await.unwrap().into_inner();
    assert!(seen.found);
    assert_eq!((output(seen.result.as_ref().unwrap()), &seen.logs[..]), ("hello", &["not again".to_owned()][..]));
    let unknown =
        client.get_execution_status(status(types::ExecutionId::new().to_string())).await.unwrap().into_inner();
    assert!(!unknown.found && unknown.message.contains("no execution"), "{unknown:?}");

    let context = wire::ExecutionContext { execution_id: id.to_string(), ..Default::default() };
    let (mut other, request) = (client.clone(), InvokeFunctionRequest { context: Some(context), ..by_id(hold) });
    let call = tokio::spawn(async move { other.invoke_function(request).await });
    node.stage.holds(1).await;
    let running = ListExecutionsRequest { status_filter: ExecutionStatus::Running.into(), ..Default::default() };
    let running = client.list_executions(running).await.unwrap().into_inner();
    assert_eq!(running.executions.iter().map(|one| one.execution_id.clone()).collect::<Vec<_>>(), [id.to_string()]);
    let cancel = CancelExecutionRequest { execution_id: id.to_string(), ..Default::default() };
    let cancelled = client.cancel_execution(cancel.clone()).await.unwrap().into_inner();
    assert_eq!((cancelled.success, cancelled.final_status()), (true, ExecutionStatus::Cancelled));
    assert!(!client.cancel_execution(cancel).await.unwrap().into_inner().success);
    let ended = call.await.unwrap().unwrap().into_inner().result.unwrap();
    assert_eq!((ended.status(), &*ended.error_code), (ExecutionStatus::Cancelled, "CANCELLED"));

    let page = ListExecutionsRequest { limit: 1, ..Default::default() };
    let first = client.list_executions(page.clone()).await.unwrap().into_inner();
    assert!(first.has_more && first.executions[0].execution_id == id.to_string(), "{first:?}");
    let page = ListExecutionsRequest { start_after: first.next_start_after, ..page };
    let second = client.list_executions(page).await.unwrap().into_inner();
    assert!(!second.has_more && second.executions[0].task_id == echo.to_string(), "{second:?}");
    let wrong = ListExecutionsRequest { start_after: "x".to_owned(), ..Default::default() };
    assert_eq!(client.list_executions(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn tasks_health_and_figures_are_those_of_the_node() {
    let node = Node::new().await;
    let mut client = Functions::new(node.channel());
    let (echo, trap) = (node.task("echo"), node.task("trap"));
    for task in [echo, echo, trap] {
        client.invoke_function(by_id(task)).await.unwrap();
    }
    let list = ListTasksRequest { limit: 1, include_details: true, ..Default::default() };
    let list = client.list_tasks(list).await.unwrap().into_inner();
    assert!(list.has_more && list.next_start_after == echo.to_string(), "{list:?}");
    assert_eq!((list.tasks[0].execution_count, list.tasks[0].last_status()), (2, ExecutionStatus::Completed));
    assert_eq!(list.tasks[0].artifact_spec.as_ref().unwrap().artifact_type, "wasm");
    let prefixed = ListTasksRequest { prefix: "tr".to_owned(), ..Default::default() };
    assert_eq!(client.list_tasks(prefixed).await.unwrap().into_inner().tasks[0].task_id, trap.to_string());
    let get = GetTaskRequest { task_id: trap.to_string(), include_executions: true, ..Default::default() };
    let one = client.get_task(get.clone()).await.unwrap().into_inner();
    assert!(one.found && one.executions[0].status() == ExecutionStatus::Failed, "{one:?}");

    let health = client.get_health(GetHealthRequest { include_details: true }).await.unwrap().into_inner();
    assert_eq!((&*health.status, health.details.unwrap().total_executions), ("healthy", 3));
    let stats = GetStatsRequest { include_task_stats: true, include_execution_stats: true, ..Default::default() };
    let stats = client.get_stats(stats).await.unwrap().into_inner();
    let (service, tasks, executions) =
        (stats.service_stats.unwrap(), stats.task_stats.unwrap(), stats.execution_stats.unwrap());
    assert_eq!((service.total_tasks, service.total_executions, tasks.idle_tasks), (2, 3, 2));
    assert!(service.memory_usage_percent > 0.0, "{service:?}");
    assert_eq!((tasks.tasks_by_type["wasm"], &*tasks.most_active_tasks[0].task_name), (2, "echo"));
    assert_eq!((executions.completed_executions, executions.failed_executions), (2, 1));
    assert_eq!(executions.executions_by_function["echo"], 2);

    let delete = DeleteTaskRequest { task_id: trap.to_string(), cleanup_executions: true, ..Default::default() };
    let deleted = client.delete_task(delete.clone()).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.cleaned_executions), (true, 1));
    assert!(!client.get_task(get).await.unwrap().into_inner().found);
    assert!(!client.delete_task(delete).await.unwrap().into_inner().deleted);
    node.stop().await;
}

#[tokio::test]
async fn the_later_interface_calls_looks_cancels_and_lists() {
    let node = Node::new().await;
    let mut calls = InvocationServiceClient::new(node.channel());
    let mut executions = ExecutionServiceClient::new(node.channel());
    let echo = node.task("echo");
    let request = |task: TaskId| InvokeRequest { task_id: task.to_string(), ..Default::default() };
    let input = Some(wire::Payload { content_type: "text/plain".to_owned(), data: "hello".into() });
    let answer = calls.invoke(InvokeRequest { input, invocation_id: "mine".to_owned(), ..request(echo) }).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.status(), &*answer.invocation_id), (ExecutionStatus::Completed, "mine"));
    assert_eq!(answer.output.unwrap().data, "hello");
    let get = GetExecutionRequest { execution_id: answer.execution_id.clone(), include_output: true };
    let seen = executions.get_execution(get).await.unwrap().into_inner();
    assert_eq!((&seen.output.unwrap().data[..], &*seen.task_id), (&b"hello"[..], &*echo.to_string()));
    let unknown = GetExecutionRequest { execution_id: types::ExecutionId::new().to_string(), ..Default::default() };
    assert_eq!(executions.get_execution(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(calls.invoke(request(TaskId::new())).await.unwrap_err().code(), Code::NotFound);
    let failed = calls.invoke(request(node.task("trap"))).await.unwrap().into_inner();
    assert_eq!((failed.status(), &*failed.error.unwrap().code), (ExecutionStatus::Failed, "TRAP"));

    let (hold, id) = (node.task("hold"), types::ExecutionId::new());
    let (mut other, named) = (calls.clone(), InvokeRequest { execution_id: id.to_string(), ..request(hold) });
    let call = tokio::spawn(async move { other.invoke(named).await });
    node.stage.holds(1).await;
    let terminate = wire::TerminateExecutionRequest { execution_id: id.to_string(), ..Default::default() };
    let ended = executions.terminate_execution(terminate).await.unwrap().into_inner();
    assert_eq!((ended.success, ended.final_status()), (true, ExecutionStatus::Cancelled));
    assert_eq!(call.await.unwrap().unwrap().into_inner().status(), ExecutionStatus::Cancelled);
    let page = ListNodeExecutionsRequest { limit: 2, ..Default::default() };
    let first = executions.list_executions(page.clone()).await.unwrap().into_inner();
    assert_eq!((first.executions.len(), &*first.executions[0].execution_id), (2, &*id.to_string()));
    let page = ListNodeExecutionsRequest { page_token: first.next_page_token, ..page };
    let second = executions.list_executions(page).await.unwrap().into_inner();
    assert_eq!((second.executions.len(), &*second.next_page_token), (1, ""));
    node.stop().await;
}

#[tokio::test]
async fn asynchronous_calls_go_to_the_registry_and_keys_work_as_over_http() {
    let node = Node::new().await;
    let mut calls = InvocationServiceClient::new(node.channel());
    let task = node.task("count");
    let later = InvokeRequest { task_id: task.to_string(), mode: ExecutionMode::Async.into(), ..Default::default() };
    let answer = calls.invoke(later).await.unwrap().into_inner();
    assert_eq!(answer.status(), ExecutionStatus::Pending);
    let first = InvokeFunctionRequest { execution_mode: ExecutionMode::Async.into(), ..by_id(task) };
    let answer = Functions::new(node.channel()).invoke_function(first).await.unwrap().into_inner();
    assert_eq!(answer.status_endpoint, format!("/functions/executions/{}", answer.execution_id));
    assert_eq!((node.registry.world().created.len(), node.stage.calls()), (2, 0));
    let keyed = || {
        let mut request = Request::new(InvokeRequest { task_id: task.to_string(), ..Default::default() });
        request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
        request
    };
    let first = calls.invoke(keyed()).await.unwrap();
    assert!(first.metadata().get("idempotent-replayed").is_none());
    let again = calls.invoke(keyed()).await.unwrap();
    assert_eq!(again.metadata().get("idempotent-replayed").unwrap(), "true");
    assert_eq!(first.into_inner().execution_id, again.into_inner().execution_id);
    node.stop().await;
}

#[tokio::test]
async fn an_instance_is_destroyed_by_its_id() {
    let node = Node::new().await;
    let mut client = InstanceServiceClient::new(node.channel());
    let call = tokio::spawn(node.raw(node.task("hold"), "").send());
    node.stage.holds(1).await;
    let (_, list) = node.get("/api/v1/instances").await;
    let instance_id = list["instances"][0]["instance_id"].as_str().unwrap().to_owned();
    let destroy = DestroyInstanceRequest { instance_id, reason: "test".to_owned() };
    assert!(client.destroy_instance(destroy).await.unwrap().into_inner().success);
    assert_eq!(call.await.unwrap().unwrap().status(), 409);
    let gone = DestroyInstanceRequest { instance_id: "9999".to_owned(), ..Default::default() };
    assert_eq!(client.destroy_instance(gone).await.unwrap_err().code(), Code::NotFound);
    node.stop().await;
}
