using System.Threading.Channels;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.Hosting;

namespace Fleet.HostAgent.Attach;

/// <summary>Runs something for each VM on this host that names a path for it, for as long as the VM is here and names the same path.</summary>
public abstract class PerVmService(VmTable table, DesiredState desired) : BackgroundService
{
    private readonly Dictionary<string, (string Path, CancellationTokenSource Stop, Task Run)> _running = new(StringComparer.Ordinal);
    private readonly Channel<bool> _changed = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        void Changed() => _changed.Writer.TryWrite(true);
        desired.MembershipChanged += Changed;
        Changed();
        try
        {
            await PrepareAsync(stoppingToken);
            await foreach (var _ in _changed.Reader.ReadAllAsync(stoppingToken))
            {
                await MatchAsync(Wanted(), stoppingToken);
            }
        }
        catch (OperationCanceledException)
        {
            // Stopping.
        }
        finally
        {
            desired.MembershipChanged -= Changed;
            await MatchAsync([], CancellationToken.None);
        }
    }

    /// <summary>What must be so before the first VM's begins.</summary>
    protected abstract Task PrepareAsync(CancellationToken cancellationToken);

    /// <returns>Null where the VM needs nothing of this.</returns>
    protected abstract string? PathOf(DesiredVm desired);

    /// <summary>Ends when it is cancelled.</summary>
    protected abstract Task RunAsync(VmEntry entry, string path, CancellationToken cancellationToken);

    private Dictionary<string, string> Wanted()
    {
        var wanted = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var entry in table.All)
        {
            if (entry.Desired is { } vm && PathOf(vm) is { } path)
            {
                wanted[entry.Vm] = path;
            }
        }

        return wanted;
    }

    private async Task MatchAsync(Dictionary<string, string> wanted, CancellationToken stoppingToken)
    {
        foreach (var (vm, running) in _running.ToList())
        {
            if (wanted.GetValueOrDefault(vm) != running.Path || running.Run.IsCompleted)
            {
                await running.Stop.CancelAsync();
                await running.Run;
                running.Stop.Dispose();
                _running.Remove(vm);
            }
        }

        foreach (var (vm, path) in wanted.Where(pair => !_running.ContainsKey(pair.Key)))
        {
            var stop = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
            _running.Add(vm, (path, stop, RunAsync(table.GetOrAdd(vm), path, stop.Token)));
        }
    }
}
