using Fleet.Api.Migrations;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Migrations;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Model;

/// <summary>What an orchestrator asks of a migration, and the grant.</summary>
internal sealed partial class GateModel
{
    private async Task CreateAsync(string target)
    {
        var id = $"{_vm}-m{_ids.Count + 1}";
        var request = new MigrationRequest(_vm, target, GateWorld.TargetAttach);
        var outcome = await WriteAsync(scope => _services.GetRequiredService<MigrationCommands>().PutAsync(scope, id, request, "test", TimeSpan.FromHours(1)));
        var allowed = _now is null && target != _owner && !_resetWanted && _quarantine is null;
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            _ids.Add(id);
            _now = new Moving(id, _owner, target);
        }
    }

    private async Task SwitchoverAsync(bool isFenced)
    {
        var commands = _services.GetRequiredService<MigrationCommands>();
        var outcome = await WriteAsync(scope => commands.SwitchoverAsync(scope, LastId, new SwitchoverRequest(isFenced, "test"), "test", TimeSpan.FromSeconds(60)));
        if (_now is null)
        {
            // What has ended stays as it is; only of one that was completed the answer is still the permit.
            return;
        }

        if (isFenced && _now.State != MigrationStates.Granted && (_now.Source is null || _online.Contains(_now.Source)))
        {
            Assert.True(outcome.IsRefused);
            return;
        }

        Assert.False(outcome.IsRefused);
        if (_now.State == MigrationStates.Preparing)
        {
            _now.State = MigrationStates.Switching;
        }

        _now.IsFenced |= isFenced && _now.State == MigrationStates.Switching;
        TryGrant();
    }

    private async Task AbortAsync(bool isFenced)
    {
        var commands = _services.GetRequiredService<MigrationCommands>();
        await WriteAsync(scope => commands.AbortAsync(scope, LastId, new AbortRequest("test", isFenced), "test"));
        if (_now is null)
        {
            return;
        }

        if (_now.State != MigrationStates.Granted)
        {
            (_moves, _now) = (_now.State == MigrationStates.Switching, null);
        }
        else if (isFenced && !_now.Lifted && !_online.Contains(_now.Target!))
        {
            (_owner, _now, _moves) = (_now.Source, null, true);
        }
    }

    private async Task CompleteAsync()
    {
        await WriteAsync(scope => MigrationCommands.CompleteAsync(scope, LastId, "test"));
        if (_now is { State: MigrationStates.Granted, Lifted: true })
        {
            _now = null;
        }
    }

    private async Task ExpireAsync()
    {
        _world.Time.Advance(TimeSpan.FromSeconds(61));
        _online.Clear();
        await WriteAsync(scope => MigrationCommands.ExpireAsync(scope, LastId));
        if (_now is { State: MigrationStates.Switching })
        {
            (_now, _moves) = (null, true);
        }
    }

    /// <summary>The grant, or the end of a park, as the model sees it: every condition of GATE.md at this moment.</summary>
    private void TryGrant()
    {
        if (_now is not { State: MigrationStates.Switching } now)
        {
            return;
        }

        var isSealed = now.Source is null || now.IsFenced || now.IsSealed;
        if (now.Target is null)
        {
            if (isSealed)
            {
                (_owner, _now, _moves) = (null, null, true);
                Counts.Parks++;
            }

            return;
        }

        if (isSealed
            && now.Ack is { } ack
            && (now.Source is null || now.IsFenced || now.Seal == ack.VmmInstance)
            && now.AckIncarnation == Agent(now.Target).Incarnation
            && ack.MemoryInstance == _memory
            && ack.Generation == _generation
            && ack.Digest == Digest())
        {
            now.State = MigrationStates.Granted;
            (_owner, _moves) = (now.Target, true);
            _set.UnionWith(ack.Unservable.Select(page => page.Frame));
            Counts.Grants++;
        }
    }
}
