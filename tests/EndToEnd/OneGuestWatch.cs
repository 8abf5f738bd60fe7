using System.Net.Sockets;
using Fleet.TinyVmm.Control;

namespace Fleet.EndToEnd.Tests;

/// <summary>Looks at every VMM of a VM all the time: no two of them may run their guest at once (I2).</summary>
internal sealed class OneGuestWatch : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly List<(string Name, TinyVmmClient Client)> _vmms = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _watching;
    private string? _violation;
    private long _looks;
    private long _forgiven;

    public OneGuestWatch() => _watching = WatchAsync();

    /// <param name="control">The VMM's control socket; the watch has a connection of its own, which a blocked guest does not block.</param>
    public async Task AddAsync(string control, CancellationToken cancellationToken)
    {
        var client = await TinyVmmClient.ConnectAsync(control, cancellationToken);
        lock (_lock)
        {
            _vmms.Add((Path.GetFileName(control), client));
        }
    }

    /// <summary>Two guests ran because an operator said what was not so; from now on none may again.</summary>
    public void Forgive()
    {
        lock (_lock)
        {
            (_forgiven, _violation) = (_looks, null);
        }
    }

    /// <summary>Ends the watch.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        foreach (var (_, client) in _vmms)
        {
            await client.DisposeAsync();
        }

        _stop.Dispose();
        Assert.Null(_violation);
        Assert.False(_watching.IsFaulted, _watching.Exception?.ToString());
    }

    private async Task WatchAsync()
    {
        while (true)
        {
            var look = Interlocked.Increment(ref _looks);
            // Twice: whoever runs in both looks ran at the moment in between, at which all others were looked at too.
            var first = await RunningAsync();
            var both = first.Count < 2 ? [] : first.Intersect(await RunningAsync()).ToList();
            lock (_lock)
            {
                // A look that had begun when it was forgiven saw what was forgiven.
                _violation ??= both.Count < 2 || look <= _forgiven ? null : $"the guest ran at the same time in {string.Join(" and ", both)}";
            }

            await Task.Delay(5, _stop.Token); // allowed: polling other processes, for as long as the test lasts
        }
    }

    private async Task<List<string>> RunningAsync()
    {
        List<(string Name, TinyVmmClient Client)> vmms;
        lock (_lock)
        {
            vmms = [.. _vmms];
        }

        var running = new List<string>();
        foreach (var (name, client) in vmms)
        {
            if (await IsRunningAsync(client))
            {
                running.Add(name);
            }
        }

        return running;
    }

    private async Task<bool> IsRunningAsync(TinyVmmClient client)
    {
        try
        {
            return (await client.StatusAsync(_stop.Token)).State == "running";
        }
        catch (Exception exception) when (exception is IOException or SocketException)
        {
            // The process has ended.
            return false;
        }
    }
}
