using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.TinyVmm.Control;

namespace Fleet.Demo.Running;

/// <summary>What an orchestrator does to migrate a VM: over HTTP with the control plane, and with the two VMMs.</summary>
public sealed class Migrating(LocalFleet fleet, string vm, string memory, string vcpu, string backing = "memfd")
{
    /// <summary>Announces the migration and starts the VMM that receives; its agent does not let it run before the permit.</summary>
    public async Task<(ChildProcess Process, TinyVmmClient Guest, string Endpoint)> PrepareAsync(string migration, string targetHost, CancellationToken cancellationToken)
    {
        await fleet.Client.PutMigrationAsync(
            migration, new MigrationRequest(vm, targetHost, new VmAttach(AttachKinds.Handoff)), cancellationToken);
        var endpoint = $"unix:{Path.Combine(fleet.Root, $"{migration}.stream")}";
        var (process, guest) = await fleet.StartVmmAsync(vm, memory, targetHost, cancellationToken, new VmmStart(Barrier: true, endpoint, vcpu, Backing: backing));
        return (process, guest, endpoint);
    }

    /// <summary>Asks for the permit until it is there.</summary>
    /// <exception cref="TimeoutException">The migration is still switching; the message has its reasons.</exception>
    public async Task<Permit> SwitchoverAsync(string migration, CancellationToken cancellationToken)
    {
        Permit? permit = null;
        await LocalFleet.UntilAsync(
            async () => (permit = await fleet.Client.SwitchoverAsync(migration, TimeSpan.FromSeconds(5), cancellationToken)) is not null,
            $"the permit of {migration}", null, cancellationToken);
        return permit!;
    }

    public Task CompleteAsync(string migration, CancellationToken cancellationToken) =>
        LocalFleet.UntilAsync(() => fleet.Client.CompleteAsync(migration, cancellationToken), $"the guest of {migration} to run on the target", null, cancellationToken);

    /// <summary>The whole of it, for a source whose guest can be streamed out.</summary>
    public async Task<(ChildProcess Process, TinyVmmClient Guest, Permit Permit)> MigrateAsync(
        string migration, TinyVmmClient source, string targetHost, CancellationToken cancellationToken)
    {
        var (process, guest, endpoint) = await PrepareAsync(migration, targetHost, cancellationToken);
        await source.MigrateOutAsync(endpoint, cancellationToken);
        var permit = await SwitchoverAsync(migration, cancellationToken);
        await CompleteAsync(migration, cancellationToken);
        return (process, guest, permit);
    }
}
