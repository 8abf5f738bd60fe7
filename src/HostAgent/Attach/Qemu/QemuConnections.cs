using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Reconcile;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.HostAgent.Attach.Qemu;

/// <summary>Keeps one <see cref="QemuConnection"/> for each VM on this host that attaches by <c>qemu</c>.</summary>
public sealed class QemuConnections(VmTable table, DesiredState desired, IServiceProvider services) : PerVmService(table, desired)
{
    private readonly VmTable _table = table;

    // Before that a VMM that is in the journal would look like a new one.
    protected override Task PrepareAsync(CancellationToken cancellationToken) => _table.WhenLoadedAsync().WaitAsync(cancellationToken);

    protected override string? PathOf(DesiredVm desired) => desired.Attach.Kind == AttachKinds.Qemu ? desired.Attach.QmpSocket : null;

    protected override Task RunAsync(VmEntry entry, string path, CancellationToken cancellationToken) =>
        ActivatorUtilities.CreateInstance<QemuConnection>(services, entry, path).RunAsync(cancellationToken);
}
