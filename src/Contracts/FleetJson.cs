using System.Text.Json.Serialization;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Changes;
using Fleet.Contracts.Faults;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Hosts;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Pages;
using Fleet.Contracts.Security;
using Fleet.Contracts.Vms;

namespace Fleet.Contracts;

/// <summary>Source-generated JSON of every body on the wire.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    NumberHandling = JsonNumberHandling.Strict,
    RespectNullableAnnotations = true)]
[JsonSerializable(typeof(VmRequest))]
[JsonSerializable(typeof(VmResource))]
[JsonSerializable(typeof(ItemList<VmResource>))]
[JsonSerializable(typeof(AddPagesRequest))]
[JsonSerializable(typeof(AddPagesResult))]
[JsonSerializable(typeof(PageList))]
[JsonSerializable(typeof(HostResource))]
[JsonSerializable(typeof(ItemList<HostResource>))]
[JsonSerializable(typeof(DrainRequest))]
[JsonSerializable(typeof(HitResource))]
[JsonSerializable(typeof(ItemList<HitResource>))]
[JsonSerializable(typeof(FaultResource))]
[JsonSerializable(typeof(ItemList<FaultResource>))]
[JsonSerializable(typeof(FaultSummary))]
[JsonSerializable(typeof(JoinTokenRequest))]
[JsonSerializable(typeof(JoinTokenCreated))]
[JsonSerializable(typeof(JoinTokenResource))]
[JsonSerializable(typeof(ItemList<JoinTokenResource>))]
[JsonSerializable(typeof(TokenRequest))]
[JsonSerializable(typeof(TokenCreated))]
[JsonSerializable(typeof(TokenResource))]
[JsonSerializable(typeof(ItemList<TokenResource>))]
[JsonSerializable(typeof(RotateRequest))]
[JsonSerializable(typeof(RotateResult))]
[JsonSerializable(typeof(EnrollRequest))]
[JsonSerializable(typeof(EnrollResult))]
[JsonSerializable(typeof(ClaimRequest))]
[JsonSerializable(typeof(ClaimResult))]
[JsonSerializable(typeof(HeartbeatRequest))]
[JsonSerializable(typeof(HeartbeatResult))]
[JsonSerializable(typeof(ReportsRequest))]
[JsonSerializable(typeof(ReportsResult))]
[JsonSerializable(typeof(DesiredVm))]
[JsonSerializable(typeof(DesiredDelta))]
[JsonSerializable(typeof(DesiredVmRemoved))]
[JsonSerializable(typeof(SnapshotBegin))]
[JsonSerializable(typeof(SnapshotEnd))]
[JsonSerializable(typeof(Unchanged))]
[JsonSerializable(typeof(Bookmark))]
[JsonSerializable(typeof(MigrationRequest))]
[JsonSerializable(typeof(MigrationResource))]
[JsonSerializable(typeof(ItemList<MigrationResource>))]
[JsonSerializable(typeof(Permit))]
[JsonSerializable(typeof(SwitchoverRequest))]
[JsonSerializable(typeof(AbortRequest))]
[JsonSerializable(typeof(ResetRequest))]
[JsonSerializable(typeof(ParkRequest))]
[JsonSerializable(typeof(RebuildRequest))]
[JsonSerializable(typeof(StatementRequest))]
[JsonSerializable(typeof(StatementResult))]
[JsonSerializable(typeof(FenceRequest))]
[JsonSerializable(typeof(ReleaseRequest))]
[JsonSerializable(typeof(IReadOnlyList<GateReason>))]
[JsonSerializable(typeof(ChangeResource))]
[JsonSerializable(typeof(ChangeList))]
[JsonSerializable(typeof(ProblemBody))]
public sealed partial class FleetJson : JsonSerializerContext;
