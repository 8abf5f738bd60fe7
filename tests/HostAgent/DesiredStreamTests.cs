using System.IO.Pipelines;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;

namespace Fleet.HostAgent.Tests;

/// <summary>The agent's end of the desired-state stream: what it says to hold, and when it takes a connection for dead.</summary>
public sealed class DesiredStreamTests
{
    private static readonly DesiredVm Vm = new(
        "vm-1", "host-a", [new MemoryRegion("0x0", 1 << 26, 4096)], new VmAttach(AttachKinds.Handoff), 1, 2, 1,
        PoisonDigest.Compute("vm-1", 1, [new PageKey(5, 12)]), [new PageKey(5, 12)]);

    [Theory]
    [InlineData("10s", 30)]
    [InlineData("1m", 180)]
    [InlineData("1s", 15)]
    [InlineData(null, 60)]
    public async Task Stream_WithoutBookmarksForThreeIntervals_IsGivenUp(string? interval, int seconds)
    {
        var time = new FakeTimeProvider();
        var server = new Server { Interval = interval };
        await using var agent = await StartAsync();
        var following = server.Connect(agent, time).FollowAsync(1, TestContext.Current.CancellationToken);
        await server.Asked.Task;
        await server.SendAsync("event: bookmark\nid: 7\ndata: {\"revision\":7}\n\n");
        var passed = 0;
        while (!following.IsCompleted && passed < 10 * seconds)
        {
            time.Advance(TimeSpan.FromSeconds(1));
            passed++;
            await Task.Delay(1, TestContext.Current.CancellationToken); // allowed: lets the stream's continuation run
        }

        await Assert.ThrowsAsync<HttpRequestException>(() => following);
        Assert.True(passed >= seconds, $"It was given up after {passed} s.");
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public async Task Agent_SaysWhatItHolds_AndTakesUnchangedForThatAlone()
    {
        var server = new Server();
        await using var agent = await StartAsync();
        var stream = server.Connect(agent, TimeProvider.System);
        var digest = DesiredDigest.Compute([Vm]);
        Assert.Null((await FollowAsync($"event: unchanged\nid: 7\ndata: {{\"revision\":7,\"digest\":\"{digest}\"}}\n\n")).Failure);
        Assert.Contains($"&holds={digest}", server.Query, StringComparison.Ordinal);

        var (_, failure) = await FollowAsync($"event: unchanged\nid: 8\ndata: {{\"revision\":8,\"digest\":\"{new string('0', 64)}\"}}\n\n");
        Assert.IsType<InvalidDataException>(failure);
        Assert.Equal(TimeSpan.FromSeconds(7), (await FollowAsync("retry: 7000\n\n")).Pause);
        Assert.DoesNotContain("holds", server.Query, StringComparison.Ordinal);
        Assert.Equal(2, agent.Table.Find("vm-1")!.Desired!.Generation);

        async Task<(TimeSpan? Pause, Exception? Failure)> FollowAsync(string events)
        {
            var following = stream.FollowAsync(1, TestContext.Current.CancellationToken);
            await server.SendAsync(events);
            await server.EndAsync();
            try
            {
                return (await following, null);
            }
            catch (InvalidDataException exception)
            {
                return (null, exception);
            }
        }
    }

    [Theory]
    [InlineData(7, 7)]
    [InlineData(100_000, 300)]
    public async Task Refusal_CarriesWhenToAskAgain(int asked, int kept)
    {
        var server = new Server { RetryAfter = TimeSpan.FromSeconds(asked) };
        await using var agent = await StartAsync();
        var refused = await Assert.ThrowsAsync<ControlPlaneException>(() => server.Connect(agent, TimeProvider.System).FollowAsync(1, TestContext.Current.CancellationToken));
        Assert.Equal((HttpStatusCode.ServiceUnavailable, TimeSpan.FromSeconds(kept)), (refused.Status, refused.RetryAfter));
        Assert.Equal(TimeSpan.FromSeconds(kept), Backoff.AtLeast(TimeSpan.FromSeconds(1), refused));
        Assert.Equal(TimeSpan.FromHours(1), Backoff.AtLeast(TimeSpan.FromHours(1), refused));
    }

    [Fact]
    [Trait("Invariant", "I3")]
    public void Holds_WhereAnythingIsInDoubt_IsNotSaid()
    {
        Assert.Equal(DesiredDigest.Compute([Vm]), DesiredRules.Holds([Vm], 0));
        Assert.Null(DesiredRules.Holds([Vm, Vm with { Vm = "vm-2" }], 0));
        Assert.Null(DesiredRules.Holds([Vm with { Pages = [] }], 0));
        Assert.Null(DesiredRules.Holds([Vm], promised: 1));
    }

    private static async Task<TestAgent> StartAsync()
    {
        var agent = await TestAgent.StartAsync(Directory.CreateTempSubdirectory("agent-").FullName, Vm);
        await agent.Table.WhenLoadedAsync().WaitAsync(TestContext.Current.CancellationToken);
        return agent;
    }

    /// <summary>A control plane that says what a test has it say.</summary>
    private sealed class Server : HttpMessageHandler
    {
        private Pipe _pipe = new();

        public string? Interval { get; init; }

        public TimeSpan? RetryAfter { get; init; }

        public string Query { get; private set; } = string.Empty;

        public TaskCompletionSource Asked { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public DesiredStream Connect(TestAgent agent, TimeProvider time)
        {
            var client = new ControlPlaneClient(new HttpClient(this) { BaseAddress = new Uri("http://127.0.0.1:9") }, "host-a");
            return new DesiredStream(client, agent.Desired, time, NullLogger<DesiredStream>.Instance);
        }

        public async Task SendAsync(string events) => await _pipe.Writer.WriteAsync(Encoding.UTF8.GetBytes(events));

        public async Task EndAsync()
        {
            await _pipe.Writer.CompleteAsync();
            _pipe = new Pipe();
        }

        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            Query = request.RequestUri!.Query;
            var response = new HttpResponseMessage(RetryAfter is null ? HttpStatusCode.OK : HttpStatusCode.ServiceUnavailable) { Content = new StreamContent(_pipe.Reader.AsStream()) };
            if (RetryAfter is { } after)
            {
                response.Content = new StringContent("{}", Encoding.UTF8, "application/problem+json");
                response.Headers.RetryAfter = new RetryConditionHeaderValue(after);
            }

            if (Interval is not null)
            {
                response.Headers.Add(Routes.BookmarkInterval, Interval);
            }

            Asked.TrySetResult();
            return Task.FromResult(response);
        }
    }
}
