using System.Threading.Channels;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Keeps one <see cref="QemuConnection"/> for each VM on this host that attaches by <c>qemu</c>.</summary>
public sealed class QemuConnections(
    VmTable table, DesiredState desired, IServiceProvider services) : BackgroundService
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
            // Before that a VMM that is in the journal would look like a new one.
            await table.WhenLoadedAsync().WaitAsync(stoppingToken);
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

    private Dictionary<string, string> Wanted()
    {
        var wanted = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var entry in table.All)
        {
            if (entry.Desired is { Attach: { Kind: AttachKinds.Qemu, QmpSocket: { } path } })
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
            if (wanted.GetValueOrDefault(vm) != running.Path)
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
            _running.Add(vm, (path, stop, ActivatorUtilities.CreateInstance<QemuConnection>(services, table.GetOrAdd(vm), path).RunAsync(stop.Token)));
        }
    }
}
