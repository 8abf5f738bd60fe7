using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.State;
using Microsoft.Extensions.Logging;

namespace Fleet.HostAgent.Reconcile;

/// <summary>Takes in what the control plane wants: judges it, makes it durable, and has the VM looked at.</summary>
public sealed partial class DesiredState(VmTable table, DesiredStore store, StorePromise promise, WorkSet work, ILogger<DesiredState> logger)
{
    /// <summary>Raised when the VMs that concern this host changed.</summary>
    public event Action? MembershipChanged;

    /// <summary>The last known state from disk; once, at start.</summary>
    public void Load()
    {
        foreach (var desired in store.Load())
        {
            table.GetOrAdd(desired.Vm).Desired = desired;
            work.Add(desired.Vm);
        }

        MembershipChanged?.Invoke();
    }

    /// <summary>What this host holds, all of it durable; null where it is in doubt.</summary>
    public string? Holds() => DesiredRules.Holds([.. table.All.Select(entry => entry.Desired).OfType<DesiredVm>()], promise.StoreEpoch);

    /// <summary>A whole snapshot: the VMs in it, and no others, concern this host from now on.</summary>
    /// <returns>VMs whose entry contradicts itself and must be fetched again.</returns>
    public async Task<IReadOnlyList<string>> ReplaceAsync(IReadOnlyList<DesiredVm> snapshot, CancellationToken cancellationToken)
    {
        var refetch = new List<string>();
        foreach (var desired in snapshot)
        {
            if (await AdoptAsync(desired, cancellationToken) == DesiredVerdict.Refetch)
            {
                refetch.Add(desired.Vm);
            }
        }

        var wanted = snapshot.Select(desired => desired.Vm).ToHashSet(StringComparer.Ordinal);
        foreach (var entry in table.All.Where(entry => entry.Desired is not null && !wanted.Contains(entry.Vm)).ToList())
        {
            await RemoveAsync(entry.Vm, cancellationToken);
        }

        return refetch;
    }

    public async Task<DesiredVerdict> AdoptAsync(DesiredVm desired, CancellationToken cancellationToken)
    {
        if (IsInvalid(desired.Vm))
        {
            return DesiredVerdict.Invalid;
        }

        var entry = table.GetOrAdd(desired.Vm);
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            return Take(entry, DesiredRules.Judge(entry.Newest, desired, promise.StoreEpoch), DesiredRules.Take(entry.Desired, desired));
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    public async Task<DesiredVerdict> ApplyAsync(DesiredDelta delta, CancellationToken cancellationToken)
    {
        if (IsInvalid(delta.Vm))
        {
            return DesiredVerdict.Invalid;
        }

        var entry = table.GetOrAdd(delta.Vm);
        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            var (verdict, result) = DesiredRules.Apply(entry.Desired, delta);
            return Take(entry, verdict, result);
        }
        finally
        {
            entry.Gate.Release();
        }
    }

    /// <summary>The VM no longer concerns this host. Nothing is disarmed: absence never is a reason to (DESIGN 5, GATE "Sets").</summary>
    public async Task RemoveAsync(string vm, CancellationToken cancellationToken)
    {
        if (table.Find(vm) is not { } entry)
        {
            return;
        }

        await entry.Gate.WaitAsync(cancellationToken);
        try
        {
            if (entry.Desired is null)
            {
                return;
            }

            store.Remove(vm);
            entry.Desired = null;
            entry.Status = null;
            LogRemoved(vm);
        }
        finally
        {
            entry.Gate.Release();
        }

        MembershipChanged?.Invoke();
    }

    // Ids become names of files and sockets here, and this agent is root.
    private bool IsInvalid(string? vm)
    {
        if (ResourceId.IsValid(vm))
        {
            return false;
        }

        LogInvalid(vm);
        return true;
    }

    private DesiredVerdict Take(VmEntry entry, DesiredVerdict verdict, DesiredVm? desired)
    {
        if (verdict == DesiredVerdict.Older)
        {
            LogOlder(entry.Vm, entry.Newest?.Generation ?? 0);
        }

        if (verdict != DesiredVerdict.Adopt || desired is null || ReferenceEquals(desired, entry.Desired))
        {
            return verdict;
        }

        var isNew = entry.Desired is null || entry.Desired.Attach != desired.Attach;
        store.Save(desired);
        entry.Desired = desired;
        work.Add(entry.Vm);
        if (isNew)
        {
            MembershipChanged?.Invoke();
        }

        return verdict;
    }

    [LoggerMessage(1001, LogLevel.Information, "VM {Vm} no longer concerns this host; what is armed in its VMM stays armed")]
    private partial void LogRemoved(string vm);

    [LoggerMessage(2331, LogLevel.Error, "The control plane sent a view of a VM whose id is none ({Vm}); it is refused")]
    private partial void LogInvalid(string? vm);

    [LoggerMessage(1002, LogLevel.Debug, "An older view of VM {Vm} was ignored; generation {Generation} is known")]
    private partial void LogOlder(string vm, long generation);
}
