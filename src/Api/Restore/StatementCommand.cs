using System.Text.Json;
using Fleet.Api.Agents;
using Fleet.Api.Problems;
using Fleet.Api.Vms;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;
using Fleet.Data.Pages;
using Fleet.Data.Placement;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Restore;

/// <summary>
/// Takes a host's statement, as one command: its pages join the sets at once; the rest is kept until all have stated. It speaks for what a
/// restore may have forgotten. Of a VM whose quarantine has ended it only adds pages, and only where the host has held the VM, or was
/// awaited and fenced: neither its layout nor what other hosts hold is a late host's to say (I3, I7).
/// </summary>
internal sealed class StatementCommand
{
    private readonly WriteScope _scope;
    private readonly string _host;
    private readonly string _actor;
    private readonly bool _isRepeated;
    private readonly bool _isFenced;
    private readonly List<string> _ignored = [];
    private bool? _mayBeForgotten;

    private StatementCommand(WriteScope scope, HostRow row, string actor)
    {
        var epoch = StoreEpochs.Of(scope.Revision);
        (_scope, _host, _actor) = (scope, row.Id, actor);
        (_isRepeated, _isFenced) = (row.StatedEpoch == epoch, row.FencedEpoch == epoch);
    }

    /// <returns>Number of VMs that stay quarantined.</returns>
    public static async Task<Outcome<StatementTaken>> ApplyAsync(WriteScope scope, string host, StatementRequest request, string actor)
    {
        var epoch = StoreEpochs.Of(scope.Revision);
        var row = await scope.Db.Hosts.FindAsync(host);
        if (row is null || request.Incarnation != row.Incarnation)
        {
            return request.Incarnation < (row?.Incarnation ?? 0) ? ProblemTypes.AgentSuperseded : ProblemTypes.StatementRequired;
        }

        if (request.StoreEpoch != epoch)
        {
            return new Problem(ProblemTypes.StatementRequired, $"The store epoch is {epoch}: claim again, promise it, and state anew.");
        }

        if (request.Vms.FirstOrDefault(vm => HighestOf(vm) > scope.Revision) is { } impossible)
        {
            return new Problem(ProblemTypes.InvalidRequest, $"{impossible.Vm}: a number that was not issued yet.");
        }

        if (epoch == 0)
        {
            return new StatementTaken(0, []);
        }

        var command = new StatementCommand(scope, row, actor);
        var pages = 0;
        foreach (var statement in request.Vms)
        {
            pages += await command.TakeAsync(statement);
        }

        if (row.StatedEpoch != epoch && request.Spool is { } spool)
        {
            await SpoolPositions.GoOnFromAsync(scope, host, spool);
        }

        if (row.StatedEpoch != epoch || pages > 0)
        {
            var payload = JsonSerializer.Serialize(new StatementPayload(epoch, request.Vms.Count, pages), RestoreJson.Default.StatementPayload);
            row.Version = scope.Change(ChangeKinds.HostStated, ChangeResources.Host(host), actor, payload: payload);
            row.StatedEpoch = epoch;
        }

        return new StatementTaken(await Quarantine.TryEndAsync(scope, actor), command._ignored);
    }

    private static long HighestOf(VmStatement statement) =>
        new[] { statement.MemoryInstance, statement.Right ?? 0, statement.Closed ?? 0, statement.RightMemoryInstance ?? 0 }.Max();

    private async Task<int> TakeAsync(VmStatement statement)
    {
        var vm = await _scope.Db.Vms.FindAsync(statement.Vm);
        if (vm is not { Quarantined: true } && _isRepeated)
        {
            return 0;
        }

        var hasHeld = await _scope.Db.Placements.AnyAsync(row => row.Vm == statement.Vm && row.Host == _host);
        if (vm is null ? !await MayBeForgottenAsync() : !(vm.Quarantined || hasHeld || _isFenced))
        {
            _ignored.Add(statement.Vm);
            return 0;
        }

        vm ??= Create(statement);
        if (vm is null)
        {
            return 0;
        }

        if (vm.Quarantined && statement is { Live: true } or { Unguarded: true })
        {
            // What this host reports until the quarantine ends is of the RAM that its guest has.
            vm.MemoryInstance = Math.Max(vm.MemoryInstance, statement.RightMemoryInstance ?? statement.MemoryInstance);
        }

        await StoreAsync(statement, vm);
        if (vm.Quarantined || hasHeld)
        {
            await RememberAsync(statement, vm);
        }

        return await AddPagesAsync(statement, vm);
    }

    /// <summary>
    /// Whether a VM that is not known may be one that the restored database forgot: while anything is quarantined or awaited besides this
    /// host, and for the first to say anything. Later a VM is made by those who may, not by any host with a credential.
    /// </summary>
    private async Task<bool> MayBeForgottenAsync()
    {
        var epoch = StoreEpochs.Of(_scope.Revision);
        return _mayBeForgotten ??= await _scope.Db.Vms.AnyAsync(row => row.Quarantined)
            || await Quarantine.Awaited(_scope.Db, epoch).AnyAsync(row => row.Id != _host)
            || !await _scope.Db.Hosts.AnyAsync(row => row.StatedEpoch == epoch || row.FencedEpoch == epoch);
    }

    /// <summary>The restored database does not know the VM: it is made again from what the host knows, if that is enough.</summary>
    private VmRow? Create(VmStatement statement)
    {
        if (statement is not { Memory: not null, Attach: not null })
        {
            return null;
        }

        var definition = VmDefinition.From(statement.Vm, new VmRequest(_host, statement.Memory, statement.Attach), _actor, mayClear: false, Lists.IfMatch.Absent);
        var revision = _scope.Change(ChangeKinds.VmCreated, ChangeResources.Vm(statement.Vm), _actor, $"stated by {_host} after a restore", definition.Memory);
        var vm = new VmRow
        {
            Id = statement.Vm,
            Host = _host,
            Memory = definition.Memory,
            Attach = definition.Attach,
            MemoryInstance = statement.RightMemoryInstance ?? statement.MemoryInstance,
            Generation = revision,
            PlacementEpoch = revision,
            Version = revision,
            Quarantined = true,
            QuarantineReason = QuarantineReasons.AwaitingStatements,
        };
        _scope.Db.Vms.Add(vm);
        PlacementHistory.Open(_scope, vm, revision);
        _scope.Touch(_host, vm.Id);
        return vm;
    }

    private async Task StoreAsync(VmStatement statement, VmRow vm)
    {
        var row = await _scope.Db.Statements.FindAsync(vm.Id, _host);
        if (row is null)
        {
            row = new StatementRow { Vm = vm.Id, Host = _host };
            _scope.Db.Statements.Add(row);
        }

        row.MemoryInstance = statement.MemoryInstance;
        row.Right = statement.Right;
        row.RightMemoryInstance = statement.RightMemoryInstance;
        row.Closed = statement.Closed;
        row.VmmInstance = statement.VmmInstance;
        row.Live = statement.Live;
        row.Unguarded = statement.Unguarded;
        row.Sealed = statement.Sealed;
        row.SealedTo = statement.SealedTo;
        row.Attach = statement.Attach is { } attach ? JsonSerializer.Serialize(attach, FleetJson.Default.VmAttach) : null;
        _scope.Touch(_host, vm.Id);
    }

    /// <summary>It held the VM, whatever the restored database remembers: reports that it spooled then are authorised by the history.</summary>
    private async Task RememberAsync(VmStatement statement, VmRow vm)
    {
        var (epoch, memory) = statement.Right is { } right ? (right, statement.RightMemoryInstance ?? statement.MemoryInstance)
            : statement.Unguarded ? (StoreEpochs.LastBefore(StoreEpochs.Of(_scope.Revision)), statement.MemoryInstance)
            : default;
        if (epoch > 0 && await _scope.Db.Placements.FindAsync(vm.Id, epoch, _host) is null)
        {
            _scope.Db.Placements.Add(new PlacementRow
            {
                Vm = vm.Id,
                PlacementEpoch = epoch,
                Host = _host,
                MemoryInstance = memory,
                FromRevision = epoch,
                ToRevision = _scope.Revision,
            });
        }
    }

    private async Task<int> AddPagesAsync(VmStatement statement, VmRow vm)
    {
        var layout = MemoryLayout.Parse(vm.Memory);
        var outside = statement.Pages.Where(page => !layout.Contains(page.Frame, page.Shift)).ToList();
        if (outside.Count > 0 && vm.Quarantined && statement is { Memory: { } memory } and ({ Live: true } or { Unguarded: true }) && statement.MemoryInstance >= vm.MemoryInstance)
        {
            // The guest that runs has this memory: pages of the set outside of it are of nothing that exists.
            var stated = VmDefinition.ToJson(memory);
            VmCommands.Redefine(_scope, vm, stated, vm.Attach, await VmCommands.OutsideAsync(_scope, vm, stated), _actor, $"stated by {_host} after a restore");
            layout = MemoryLayout.Parse(stated);
            outside = [.. outside.Where(page => !layout.Contains(page.Frame, page.Shift))];
        }

        if (outside.Count > 0 && !_isRepeated)
        {
            _scope.Change(
                ChangeKinds.PagesNotTaken, ChangeResources.Vm(vm.Id), _actor, $"stated by {_host}, outside the VM's memory",
                JsonSerializer.Serialize(outside, RestoreJson.Default.IReadOnlyListPageKey));
        }

        await _scope.Db.SaveChangesAsync();
        return await PoisonedSet.AddMissingAsync(_scope, vm, statement.Pages.Except(outside), _host, _actor, $"stated by {_host} after a restore");
    }
}

/// <param name="Quarantined">Number of VMs that stay quarantined.</param>
/// <param name="Ignored">Stated, and nothing of this host as far as is known.</param>
internal readonly record struct StatementTaken(int Quarantined, IReadOnlyList<string> Ignored);
