using Fleet.Api.Agents;
using Fleet.Api.Problems;
using Fleet.Api.Tests.Support;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Migrations;

namespace Fleet.Api.Tests.Model;

/// <summary>What agents report, in order or not, of this migration or another.</summary>
internal sealed partial class GateModel
{
    private async Task StrikeAsync(GateStep step)
    {
        var agent = _agents[step.Host];
        var origin = step.Variant switch { 0 => PoisonOrigins.Sealed, 1 => PoisonOrigins.Incoming, 2 => null, _ => PoisonOrigins.Held };
        var memory = step.Variant == 5 ? _oldMemory : _memory;
        var report = TestAgent.Poison(0, Resource, step.Number) with { Origin = origin, MemoryInstance = memory };
        if (await ReportAsync(agent, report, claimsRight: origin != PoisonOrigins.Incoming) is not null)
        {
            return;
        }

        if (_owner == agent.Host || origin is null or PoisonOrigins.Held)
        {
            _set.Add(step.Number);
        }
        else if (origin == PoisonOrigins.Incoming && _now is { State: MigrationStates.Switching } && _now.Target == agent.Host)
        {
            _now.Ack = null;
        }
    }

    /// <param name="sweep">A page that the sweep ahead of the seal found, told in the same request; null where it found none.</param>
    private async Task SealAsync(TestAgent agent, bool isLastMigration, bool isThisEpoch, string? instance, long? sweep)
    {
        var id = isLastMigration || _ids.Count < 2 ? LastId : _ids[^2];
        var seal = (GateWorld.Gate(AgentReport.Seal, Resource, id, isThisEpoch ? _epoch : _oldEpoch, instance), false);
        var found = sweep is { } frame ? TestAgent.Poison(0, Resource, frame) with { Origin = PoisonOrigins.Held } : null;
        var codes = await ReportAsync(agent, found is null ? [seal] : [(found, true), seal]);
        if (found is not null && codes[0] is null)
        {
            _set.Add(found.Frame);
        }

        if (codes[^1] is null && _now is { State: MigrationStates.Switching } && _now.Id == id && _now.Source == agent.Host && isThisEpoch && instance is null == _now.Target is null)
        {
            (_now.IsSealed, _now.Seal) = (true, instance);
            TryGrant();
        }
    }

    /// <summary>An operator's page and the acknowledgement of a target that does not know it yet, in one transaction of the writer.</summary>
    private async Task RaceAsync(TestAgent agent, long frame)
    {
        var ack = Fresh("boot:1:1");
        var begin = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var before = WriteAsync(async _ =>
        {
            // Until both wait behind this one, and are taken together.
            await begin.Task;
            return true;
        });
        var page = AddAsync(frame);
        var acknowledged = WriteAckAsync(agent, ack, isCurrent: true);
        begin.SetResult();
        await Task.WhenAll(before, page, acknowledged);
        TakeAck(agent, ack, isCurrent: true, await acknowledged);
    }

    private Task AckAsync(GateStep step)
    {
        var fresh = Fresh(step.Number == 0 ? "boot:2:2" : "boot:1:1");
        var ack = step.Variant switch
        {
            1 => fresh with { Generation = fresh.Generation - 1 },
            2 => fresh with { Digest = new string('0', 64) },
            4 => fresh with { Unservable = [new PageKey(step.Number, 12)] },
            5 when _acks.Count > 0 => _acks[step.Number % _acks.Count],
            _ => fresh,
        };
        return SendAckAsync(_agents[step.Host], ack, isCurrent: step.Variant != 3);
    }

    private async Task SendAckAsync(TestAgent agent, GateAck ack, bool isCurrent) =>
        TakeAck(agent, ack, isCurrent, await WriteAckAsync(agent, ack, isCurrent));

    /// <returns>Whether it was taken.</returns>
    private async Task<bool> WriteAckAsync(TestAgent agent, GateAck ack, bool isCurrent)
    {
        _acks.Add(ack);
        var incarnation = isCurrent ? agent.Incarnation : agent.Incarnation - 1;
        var request = new ReportsRequest(incarnation, _spools[agent.Host], [], [ack]);
        return !(await WriteAsync(scope => ReportCommand.ApplyAsync(scope, agent.Host, request, "test"))).IsRefused;
    }

    private void TakeAck(TestAgent agent, GateAck ack, bool isCurrent, bool taken)
    {
        var isTaken = isCurrent && _stated.Contains(agent.Host);
        Assert.Equal(isTaken, taken);
        if (isTaken && _now is { State: MigrationStates.Switching } && _now.Id == ack.Migration && _now.Target == agent.Host)
        {
            _now.Ack = ack;
            _now.AckIncarnation = agent.Incarnation;
            TryGrant();
        }
    }

    private async Task LiftedAsync(TestAgent agent, bool isThisEpoch)
    {
        var code = await ReportAsync(agent, GateWorld.Gate(AgentReport.Lifted, Resource, LastId, isThisEpoch ? _epoch : _oldEpoch));
        if (code is null && _now is { State: MigrationStates.Granted } && _now.Target == agent.Host && isThisEpoch)
        {
            _now.Lifted = true;
        }
    }

    private async Task RenounceAsync(TestAgent agent, bool isThisEpoch)
    {
        var code = await ReportAsync(agent, GateWorld.Gate(AgentReport.Renounced, Resource, LastId, isThisEpoch ? _epoch : _oldEpoch));
        if (code is null && _now is { State: MigrationStates.Granted, Lifted: false } && _now.Target == agent.Host && isThisEpoch)
        {
            (_owner, _now, _moves) = (_now.Source, null, true);
        }
    }

    private async Task AttestAsync(TestAgent agent, bool isPresent)
    {
        var report = GateWorld.Gate(AgentReport.VmmGone, Resource, null, _epoch) with { MemoryInstance = isPresent ? _memory : _oldMemory };
        if (await ReportAsync(agent, report) is null && _resetWanted && _owner == agent.Host)
        {
            BeginAnew(_owner);
        }
    }

    /// <summary>A report comes a second time, late: nothing changes (I5).</summary>
    private async Task ReplayAsync(int number)
    {
        if (_sent.Count > 0)
        {
            var (host, report) = _sent[(number * 7) % _sent.Count];
            var request = new ReportsRequest(Agent(host).Incarnation, _spools[host], [report]);
            var outcome = await WriteAsync(scope => ReportCommand.ApplyAsync(scope, host, request, "test"));
            Assert.Equal(_stated.Contains(host), !outcome.IsRefused);
        }
    }

    private async Task<string?> ReportAsync(TestAgent agent, AgentReport report, bool claimsRight = false) =>
        (await ReportAsync(agent, (report, claimsRight)))[0];

    /// <summary>Sends reports in one request, and looks whether each was judged as the placement history says (I7).</summary>
    /// <returns>Why each was not taken by that judgement; null where it may count.</returns>
    private async Task<string?[]> ReportAsync(TestAgent agent, params (AgentReport Report, bool ClaimsRight)[] reports)
    {
        var host = agent.Host;
        var next = _sequences.GetValueOrDefault(host) + 1;
        AgentReport[] numbered = [.. reports.Select((item, index) => item.Report with { Sequence = next + index })];
        var request = new ReportsRequest(agent.Incarnation, _spools[host], numbered);
        string?[] expected = [.. reports.Select(item => Judge(host, item.Report.MemoryInstance, item.ClaimsRight))];
        var outcome = await WriteAsync(scope => ReportCommand.ApplyAsync(scope, host, request, "test"));
        if (!_stated.Contains(host))
        {
            Assert.Equal(ProblemTypes.StatementRequired, outcome.Problem?.Type);
            return [.. reports.Select(_ => "statement-required")];
        }

        Assert.False(outcome.IsRefused);
        _sequences[host] = numbered[^1].Sequence;
        _sent.AddRange(numbered.Select(report => (host, report)));
        string?[] codes = [.. numbered.Select(report => outcome.Value.Rejected.SingleOrDefault(rejected => rejected.Sequence == report.Sequence)?.Code)];
        Assert.All(expected.Zip(codes), pair => Assert.True(
            pair.First is null ? pair.Second is null or "stale-migration" : pair.Second == pair.First, $"I7: a report of {host} was judged {pair.Second}, not {pair.First}"));
        return codes;
    }

    private string? Judge(string host, long memory, bool claimsRight)
    {
        var isTarget = _now?.Target == host;
        var hasHeld = _held[host].Contains(memory);
        return _held[host].Count == 0 && !isTarget ? "not-placed-here"
            : memory != _memory ? "stale-memory-instance"
            : !hasHeld && (!isTarget || claimsRight) ? "not-placed-here"
            : null;
    }
}
