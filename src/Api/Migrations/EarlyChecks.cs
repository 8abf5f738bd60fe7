using System.Text.Json;
using Fleet.Contracts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Migrations;

/// <summary>What is known to be in the way before anything was started. Told early; safety does not rest on it.</summary>
internal static class EarlyChecks
{
    // Of memfd memory, as a sign that the host can enforce at all. Not of the VM's own kind: whether huge pages can be marked was tried when some were free,
    // and what backs the memory only the host's agent sees. It says so of the VMM that is started there.
    private const string Marker = "policy.marker.memfd";

    public static List<GateReason> Of(HostRow target, VmAttach attach, string? contested)
    {
        var reasons = new List<GateReason>();
        if (target.Drained)
        {
            reasons.Add(new GateReason("target-drained"));
        }

        if (contested is not null)
        {
            reasons.Add(new GateReason("target-contested", contested));
        }

        if (target.Incarnation is null)
        {
            reasons.Add(new GateReason("target-unclaimed", "No agent has claimed the target yet."));
            return reasons;
        }

        var capabilities = JsonSerializer.Deserialize(target.Capabilities!, FleetJson.Default.IReadOnlyDictionaryStringString)!;
        var marker = capabilities.GetValueOrDefault(Marker);
        if (marker != "yes")
        {
            reasons.Add(new GateReason("capability", $"{Marker}: {marker ?? "not stated"}"));
        }

        // Agents state an attachment only where they have something to say of it.
        if (capabilities.TryGetValue($"attach.{attach.Kind}", out var kind) && kind != "yes")
        {
            reasons.Add(new GateReason("capability", $"attach.{attach.Kind}: {kind}"));
        }

        return reasons;
    }
}
