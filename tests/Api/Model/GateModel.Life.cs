using Fleet.Api.Lists;
using Fleet.Api.Migrations;
using Fleet.Api.Pages;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Vms;

namespace Fleet.Api.Tests.Model;

/// <summary>Pages by hand, and what becomes of the VM without a move.</summary>
internal sealed partial class GateModel
{
    private async Task AddAsync(long frame)
    {
        var request = new AddPagesRequest([new PageReport(frame, 12)], null);
        Assert.False((await WriteAsync(scope => PageCommands.AddAsync(scope, _vm, request, "test"))).IsRefused);
        _set.Add(frame);
    }

    private async Task ClearAsync(long frame)
    {
        var outcome = await WriteAsync(scope => PageCommands.ClearAsync(scope, _vm, frame, "test", "test", IfMatch.Absent));
        var allowed = _quarantine is null && _now is null or { State: MigrationStates.Preparing } && _set.Contains(frame);
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            _set.Remove(frame);
        }
    }

    private async Task ParkAsync(bool isFenced)
    {
        var outcome = await WriteAsync(scope => Life.ParkAsync(scope, _vm, new ParkRequest("test", isFenced), "test", TimeSpan.FromSeconds(60)));
        if (_now is null && _owner is null && _quarantine is null)
        {
            // Nothing to do, whether or not it is known what parked it.
            return;
        }

        var allowed = _quarantine is null && !_resetWanted && _now is null or { Target: null } && !(isFenced && _online.Contains(_now?.Source ?? _owner!));
        Assert.Equal(!allowed, outcome.IsRefused);
        if (!allowed)
        {
            return;
        }

        if (_now is null)
        {
            _now = new Moving(outcome.Value!, _owner, null);
            _ids.Add(_now.Id);
        }

        Assert.Equal(_now.Id, outcome.Value);
        _now.IsFenced |= isFenced;
        TryGrant();
    }

    private async Task ResetAsync()
    {
        var outcome = await WriteAsync(scope => VmLifeCommands.ResetAsync(scope, _vm, new ResetRequest("test"), "test"));
        var allowed = _resetWanted || (_now is null && _quarantine is null);
        Assert.Equal(!allowed, outcome.IsRefused);
        if (!allowed)
        {
            return;
        }

        Assert.Equal(_owner is null, outcome.Value.IsDone);
        if (_owner is null)
        {
            BeginAnew(null);
        }
        else
        {
            _resetWanted = true;
        }
    }

    private async Task RebuildAsync(string host)
    {
        var outcome = await WriteAsync(scope => Life.RebuildAsync(scope, _vm, new RebuildRequest(host, "test"), "test"));
        var allowed = _now is null && _quarantine is null && host != _owner && (_owner is null || !_online.Contains(_owner));
        Assert.Equal(!allowed, outcome.IsRefused);
        if (allowed)
        {
            BeginAnew(host);
        }
    }
}
