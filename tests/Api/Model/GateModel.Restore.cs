using Fleet.Api.Agents;
using Fleet.Api.Restore;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Vms;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.Api.Tests.Model;

/// <summary>"Restore from backup" of GATE.md: the quarantine, what hosts state, and who owns the VM afterwards.</summary>
internal sealed partial class GateModel
{
    private readonly HashSet<string> _stated = [];
    private readonly HashSet<string> _fenced = [];
    private readonly Dictionary<string, VmStatement> _statements = [];

    private int _restores;

    /// <summary>Why the VM is quarantined; null when it is not.</summary>
    private string? _quarantine;

    private async Task ClaimAsync(TestAgent agent)
    {
        await agent.ClaimAsync(boot: RestoreWorld.BootOf(agent));
        _online.Add(agent.Host);
    }

    /// <summary>A number that was never issued: it can only be from a future that the store has forgotten.</summary>
    private async Task RestoreAsync(TestAgent agent)
    {
        await agent.ClaimAsync(highestSeen: await _world.Api.CounterAsync() + 1, boot: RestoreWorld.BootOf(agent));
        Assert.True(agent.Claim.StatementRequired);
        _online.Add(agent.Host);
        _restores++;
        _stated.Clear();
        _fenced.Clear();
        _statements.Clear();
        (_now, _resetWanted, _quarantine) = (null, false, QuarantineReasons.AwaitingStatements);
        (_moves, _newGeneration) = (true, true);
    }

    private Task StateNextAsync(GateStep step) => _agents.FirstOrDefault(agent => !_stated.Contains(agent.Host) && !_fenced.Contains(agent.Host)) is { } agent
        ? StateAsync(agent, step with { Host = Array.IndexOf(_agents, agent) })
        : ReleaseAsync(_agents[step.Host].Host);

    private async Task StateAsync(TestAgent agent, GateStep step)
    {
        await ClaimAsync(agent);
        var isRepeated = _stated.Contains(agent.Host);
        if (agent.Claim.StoreEpoch == 0)
        {
            return;
        }

        var statement = Statement(step);
        await agent.StateAsync(statement);
        _stated.Add(agent.Host);
        if (_quarantine is null && isRepeated)
        {
            return;
        }

        _statements[agent.Host] = statement;
        _set.UnionWith(statement.Pages.Select(page => page.Frame));
        if (statement.Right is not null && (_quarantine is not null || _held[agent.Host].Count > 0))
        {
            // Once the quarantine has ended, only a host that is known to have held it is believed that.
            _held[agent.Host].Add(_memory);
        }

        TryEndQuarantine();
    }

    /// <summary>Rights below every number of this run, no two alike: an epoch is of one host and one life of the memory.</summary>
    private VmStatement Statement(GateStep step)
    {
        var statement = new VmStatement(_vm, _memory, null, null, null, false, [new PageKey(step.Number, 12)]);
        var held = statement with { Right = (12 * _restores) + (3 * step.Number) + step.Host + 1, RightMemoryInstance = _memory, VmmInstance = "boot-a:1:1" };
        var closed = held with { Closed = StoreEpochs.LastBefore(1) };
        return step.Variant switch
        {
            0 => statement,
            1 => closed,
            2 => held with { Live = true },
            3 => closed with { Sealed = true },
            4 => closed with { Sealed = true, SealedTo = "boot-b:1:1" },
            _ => closed with { Sealed = true, SealedTo = "boot-z:1:1" },
        };
    }

    private async Task FenceAsync(string host)
    {
        var board = _services.GetRequiredService<StatusBoard>();
        var outcome = await WriteAsync(scope => OverrideCommands.FenceAsync(scope, host, "test", "test", board));
        var allowed = _quarantine is not null && !_stated.Contains(host) && !_online.Contains(host);
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            _fenced.Add(host);
            TryEndQuarantine();
        }
    }

    private async Task ReleaseAsync(string host)
    {
        var outcome = await WriteAsync(scope => OverrideCommands.ReleaseAsync(scope, _vm, host, "test", "test"));
        var allowed = _quarantine is not null && IsComplete;
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            EndQuarantine(host, isAnew: _statements.GetValueOrDefault(host)?.Right is null);
        }
    }

    private bool IsComplete => _agents.All(agent => _stated.Contains(agent.Host) || _fenced.Contains(agent.Host));

    /// <summary>"Owner := the live right, else the highest right." With what the statements cannot tell left to an operator.</summary>
    private void TryEndQuarantine()
    {
        if (_quarantine is null || !IsComplete)
        {
            return;
        }

        var live = _statements.Where(item => item.Value.Live).ToList();
        var rights = _statements.Where(item => item.Value.Right is not null).OrderByDescending(item => item.Value.Right).ToList();
        var isUnknown = live.Count == 0 && rights is [{ Value: { Sealed: true, SealedTo: "boot-z:1:1" } }, ..];
        var isToFencedHost = live.Count == 0 && rights is [{ Value: { Sealed: true, SealedTo: "boot-b:1:1" } }, ..] && _fenced.Contains("host-b") && !_stated.Contains("host-b");
        if (live.Count > 1 || isUnknown || isToFencedHost)
        {
            Counts.Conflicts += _quarantine == QuarantineReasons.AwaitingStatements ? 1 : 0;
            _quarantine = live.Count > 1 ? QuarantineReasons.TwoLiveRights : QuarantineReasons.SealedToUnknownHost;
        }
        else if (live.Count == 0 && rights.Count == 0)
        {
            EndQuarantine(_owner, isAnew: _owner is not null);
        }
        else
        {
            var (host, statement) = live.Count > 0 ? live[0] : rights[0];
            EndQuarantine(statement is { Sealed: true, SealedTo: null } ? null : host, isAnew: false);
        }
    }

    private void EndQuarantine(string? owner, bool isAnew)
    {
        (_owner, _quarantine, _moves, _newGeneration, _anew) = (owner, null, true, true, isAnew);
        Counts.Quarantines++;
    }
}
