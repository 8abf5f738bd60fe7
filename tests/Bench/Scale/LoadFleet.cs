using System.Net.Http.Headers;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;
using Fleet.Demo.Running;

namespace Fleet.Bench.Scale;

/// <summary>All agents of the load, in this process.</summary>
internal sealed class LoadFleet : IDisposable
{
    // Calls at a time. More only queue up in the one writer.
    private const int Width = 64;
    private readonly HttpClient _calls;
    private readonly HttpClient _streams;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _running = [];

    public LoadFleet(Uri address, int agents)
    {
        _calls = Client(address, 256);
        _streams = Client(address, int.MaxValue);
        Agents = [.. Enumerable.Range(0, agents).Select(number => new LoadAgent($"host-{number:00000}", _calls, _streams))];
    }

    public IReadOnlyList<LoadAgent> Agents { get; }

    /// <summary>Join token, enrolment, VM and claim of each.</summary>
    public Task EnrolAsync(FleetClient admin, CancellationToken cancellationToken) => ForEachAsync(
        async (agent, token) =>
        {
            await agent.EnrolAsync((await admin.CreateJoinTokenAsync(agent.Host, token)).Token, token);
            await admin.PutVmAsync(agent.Vm, new VmRequest(agent.Host, [new MemoryRegion("0x0", 64 << 20, 4096)], new VmAttach(AttachKinds.Handoff)), token);
            await agent.ClaimAsync(token);
        },
        cancellationToken);

    /// <summary>All at once.</summary>
    public void Connect() => _running.AddRange(Agents.Select(agent => agent.FollowAsync(_stop.Token)));

    public void Beat() => _running.AddRange(Agents.Select(agent => agent.BeatAsync(_stop.Token)));

    /// <summary>One page more for the VM of each.</summary>
    public Task ChangeAsync(FleetClient admin, Arrivals sent, Arrivals answered, CancellationToken cancellationToken) => ForEachAsync(
        async (agent, token) =>
        {
            sent.Add(agent.Host);
            await admin.AddPagesAsync(agent.Vm, new AddPagesRequest([new PageReport(7, 12)], "measurement"), token);
            answered.Add(agent.Host);
        },
        cancellationToken);

    /// <summary>As many requests that do nothing, from as many callers at a time.</summary>
    public Task DoNothingAsync(FleetClient admin, Arrivals sent, Arrivals answered, CancellationToken cancellationToken) => ForEachAsync(
        async (agent, token) =>
        {
            sent.Add(agent.Host);
            using var response = await admin.Http.GetAsync(new Uri("/health/live", UriKind.Relative), token);
            response.EnsureSuccessStatusCode();
            answered.Add(agent.Host);
        },
        cancellationToken);

    public async Task StopAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public void Dispose()
    {
        _stop.Dispose();
        _calls.Dispose();
        _streams.Dispose();
    }

    private Task ForEachAsync(Func<LoadAgent, CancellationToken, Task> act, CancellationToken cancellationToken) => Parallel.ForEachAsync(
        Agents, new ParallelOptions { MaxDegreeOfParallelism = Width, CancellationToken = cancellationToken }, async (agent, token) => await act(agent, token));

    private static HttpClient Client(Uri address, int connections)
    {
        var client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = connections, UseProxy = false, UseCookies = false })
        {
            BaseAddress = address,
            Timeout = Timeout.InfiniteTimeSpan,
        };
        client.DefaultRequestHeaders.Accept.Add(new MediaTypeWithQualityHeaderValue("*/*"));
        return client;
    }
}
