using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Changes;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Security;
using Fleet.Contracts.Vms;

namespace Fleet.Api.OpenApi;

/// <summary>
/// One example for each body, by the name of its schema. Made of the wire records themselves, so that none can be of a shape that the API
/// does not have; together they tell one story, that of vm-1 with a bad DIMM under it.
/// </summary>
internal static class Examples
{
    private const string Cursor = "dm0tMQ";
    private const string Id = "0123456789abcdef";
    private const string Hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    private const string Instance = "4f1c8a1e-7d0e-4a57-9c2e-2f7f3f0f8a10:4242:123456";
    private static readonly DateTimeOffset At = new(2026, 1, 31, 12, 0, 0, TimeSpan.Zero);
    private static readonly VmAttach Attach = new("handoff");
    private static readonly MemoryRegion[] Memory = [new("0x0", 64 << 20, 4096)];
    private static readonly Permit Granted = new("m-1", 4720, 4713, Instance);

    private static readonly VmResource Vm = new(
        "vm-1", "host-a", Memory, Attach, 4711, 4713, 4711, 1, [new VmEnforcement("host-a", 4713, EnforcementStates.Armed)], 4713);

    private static readonly PageResource Page = new(
        5000, 12, "0x1388000", PageClasses.Srar, PageSources.Operator, "host-a", At, 4713, [new PageOnHost("host-a", PageStates.Armed, 12, null)], 4713);

    private static readonly MigrationResource Migration = new(
        "m-1", "vm-1", "host-a", "host-b", Attach, MigrationStates.Granted, 4713, [], Granted, false, At.AddHours(1));

    private static readonly HostResource Host = new(
        "host-a", HostStates.Online, 4702, "0.1.0", "6.18.0", new Dictionary<string, string> { ["uffd.poison"] = "yes" }, At,
        new Dictionary<string, string> { ["rack"] = "r1" }, false, 1, 4701);

    private static readonly HitResource Hit = new(
        17, "vm-1", 4711, 5000, "0x1388000", "host-a", 4711, At, At.AddSeconds(3), 41, HitAccesses.Read, 0, HitEvidences.KvmPageFault, HitOutcomes.MceInjected);

    private static readonly DimmIdentity Dimm = new("P1-DIMMA3", "CPU1 A3", null, "Samsung", "M393A4K40CB2");

    private static readonly FaultResource Fault = new(
        3, "host-a", Dimm, FaultKinds.Uncorrected, null, null, "vm-1", 4711, 5000, At, At, 1, Redacted: true);

    private static readonly DimmFaults Worst = new("host-a", Dimm, 1, 212, 4, At, [new FaultBucket(At.AddHours(-12), 1, 212)], Redacted: true);

    private static readonly JoinTokenResource JoinToken = new(Id, "host-a", At, At.AddHours(1), null, null, null, 4700);

    private static readonly TokenResource Token = new(
        Id, "ci", TokenKinds.Token, ["read", "pages:write"], null, At, At.AddDays(30), null, At.AddDays(1), null, 4705);

    private static readonly ChangeResource Change = new(
        4713, "pages.added", "vms/vm-1", Id, "DIMM A3", At, JsonElement.Parse("""{"added":[{"frame":5000,"shift":12}]}"""));

    private static readonly Dictionary<string, JsonNode> Bodies = new(StringComparer.Ordinal)
    {
        ["VmRequest"] = Of(new VmRequest("host-a", Memory, Attach), FleetJson.Default.VmRequest),
        ["VmResource"] = Of(Vm, FleetJson.Default.VmResource),
        ["ItemListOfVmResource"] = Of(new([Vm], Cursor), FleetJson.Default.ItemListVmResource),
        ["AddPagesRequest"] = Of(
            new AddPagesRequest([new PageReport(5000, 12, PageClasses.Srar, PageSources.Operator, At)], "DIMM A3"), FleetJson.Default.AddPagesRequest),
        ["AddPagesResult"] = Of(new AddPagesResult(4713, 1, 0), FleetJson.Default.AddPagesResult),
        ["PageList"] = Of(new PageList(4713, [Page], null), FleetJson.Default.PageList),
        ["ResetRequest"] = Of(new ResetRequest("cold start"), FleetJson.Default.ResetRequest),
        ["ParkRequest"] = Of(new ParkRequest("saved to disk"), FleetJson.Default.ParkRequest),
        ["RebuildRequest"] = Of(new RebuildRequest("host-b", "host-a burnt down"), FleetJson.Default.RebuildRequest),
        ["ReleaseRequest"] = Of(new ReleaseRequest("host-a", "its guest runs there: seen on the console"), FleetJson.Default.ReleaseRequest),
        ["MigrationRequest"] = Of(new MigrationRequest("vm-1", "host-b", Attach), FleetJson.Default.MigrationRequest),
        ["MigrationResource"] = Of(Migration, FleetJson.Default.MigrationResource),
        ["ItemListOfMigrationResource"] = Of(new([Migration], null), FleetJson.Default.ItemListMigrationResource),
        ["SwitchoverRequest"] = Of(new SwitchoverRequest(), FleetJson.Default.SwitchoverRequest),
        ["Permit"] = Of(Granted, FleetJson.Default.Permit),
        ["AbortRequest"] = Of(new AbortRequest("the new VMM did not start"), FleetJson.Default.AbortRequest),
        ["HostResource"] = Of(Host, FleetJson.Default.HostResource),
        ["ItemListOfHostResource"] = Of(new([Host], null), FleetJson.Default.ItemListHostResource),
        ["DrainRequest"] = Of(new DrainRequest("DIMM A3"), FleetJson.Default.DrainRequest),
        ["FenceRequest"] = Of(new FenceRequest("power cut by the operator"), FleetJson.Default.FenceRequest),
        ["LabelHost"] = new JsonObject { ["rack"] = "r1" },
        ["ItemListOfHitResource"] = Of(new([Hit], null), FleetJson.Default.ItemListHitResource),
        ["ItemListOfFaultResource"] = Of(new([Fault], null), FleetJson.Default.ItemListFaultResource),
        ["FaultSummary"] = Of(new FaultSummary(At.AddHours(-12), "1d", [Worst], false), FleetJson.Default.FaultSummary),
        ["ChangeList"] = Of(new ChangeList([Change], null, 4713, 0), FleetJson.Default.ChangeList),
        ["JoinTokenRequest"] = Of(new JoinTokenRequest("host-a", "1h"), FleetJson.Default.JoinTokenRequest),
        ["JoinTokenCreated"] = Of(new JoinTokenCreated(Id, "host-a", $"fleet_{Id}_…", At.AddHours(1)), FleetJson.Default.JoinTokenCreated),
        ["JoinTokenResource"] = Of(JoinToken, FleetJson.Default.JoinTokenResource),
        ["ItemListOfJoinTokenResource"] = Of(new([JoinToken], null), FleetJson.Default.ItemListJoinTokenResource),
        ["TokenRequest"] = Of(new TokenRequest("ci", ["read", "pages:write"], "30d"), FleetJson.Default.TokenRequest),
        ["TokenCreated"] = Of(new TokenCreated(Id, "ci", ["read", "pages:write"], $"fleet_{Id}_…", At.AddDays(30)), FleetJson.Default.TokenCreated),
        ["TokenResource"] = Of(Token, FleetJson.Default.TokenResource),
        ["ItemListOfTokenResource"] = Of(new([Token], null), FleetJson.Default.ItemListTokenResource),
        ["EnrollRequest"] = Of(new EnrollRequest("host-a", $"fleet_{Id}_…", Id, Hash), FleetJson.Default.EnrollRequest),
        ["EnrollResult"] = Of(new EnrollResult("host-a"), FleetJson.Default.EnrollResult),
        ["RotateRequest"] = Of(new RotateRequest(Id, Hash), FleetJson.Default.RotateRequest),
        ["RotateResult"] = Of(new RotateResult(Id, At.AddMinutes(5)), FleetJson.Default.RotateResult),
        ["ClaimRequest"] = Of(
            new ClaimRequest("4f1c8a1e-7d0e-4a57-9c2e-2f7f3f0f8a10", "0.1.0", "6.18.0", new Dictionary<string, string> { ["uffd.poison"] = "yes" }, 4701),
            FleetJson.Default.ClaimRequest),
        ["ClaimResult"] = Of(new ClaimResult(4702, "5s"), FleetJson.Default.ClaimResult),
        ["DesiredVm"] = Of(new DesiredVm("vm-1", "host-a", Memory, Attach, 4711, 4713, 4711, Hash, [new PageKey(5000, 12)]), FleetJson.Default.DesiredVm),
        ["HeartbeatRequest"] = Of(
            new HeartbeatRequest(4702, [new VmStatus("vm-1", 4711, 4713, 4713, Hash, EnforcementStates.Armed, null, [])], 17), FleetJson.Default.HeartbeatRequest),
        ["HeartbeatResult"] = Of(new HeartbeatResult("5s", []), FleetJson.Default.HeartbeatResult),
        ["ReportsRequest"] = Of(new ReportsRequest(4702, Id + Id, [Report()]), FleetJson.Default.ReportsRequest),
        ["ReportsResult"] = Of(new ReportsResult(1, []), FleetJson.Default.ReportsResult),
        ["StatementRequest"] = Of(
            new StatementRequest(4702, 1, [new VmStatement("vm-1", 4711, 4711, null, Instance, true, [new PageKey(5000, 12)], 4711)]),
            FleetJson.Default.StatementRequest),
        ["StatementResult"] = Of(new StatementResult(1), FleetJson.Default.StatementResult),
    };

    /// <param name="name">Name of a schema, or of an operation whose body has none.</param>
    public static JsonNode? OfBody(string name) => Bodies.GetValueOrDefault(name)?.DeepClone();

    private static AgentReport Report() => new(
        1, AgentReport.Hit, "vm-1", 4711, 5000, null, null, null, 4711, At, At.AddSeconds(3), 41,
        HitAccesses.Read, 0, HitEvidences.KvmPageFault, HitOutcomes.MceInjected);

    private static JsonNode Of<T>(T body, JsonTypeInfo<T> type) => JsonSerializer.SerializeToNode(body, type)!;
}
