using System.Text.RegularExpressions;
using Fleet.Api.Faults;
using Fleet.Api.Pages;
using Fleet.Api.Problems;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Hits;
using Fleet.Contracts.Pages;

namespace Fleet.Api.Agents;

/// <summary>What is wrong within one report, acknowledgement or obstacle: it is that one's alone, not the request's.</summary>
internal static partial class ReportContent
{
    /// <summary>Code of a rejected report whose content is wrong.</summary>
    public const string Malformed = "malformed-report";

    private const int MaximumUnservable = 200_000;
    private const int MaximumInstance = 128;
    private const int MaximumCode = 64;
    private const int MaximumDetail = 500;
    private const int MostNamed = 5;

    /// <returns>The members that are wrong, as JSON paths; null when none is.</returns>
    public static string? FindWrong(AgentReport report)
    {
        var errors = new ValidationErrors();
        Check(report, "$", errors);
        return Name(errors);
    }

    /// <inheritdoc cref="FindWrong(AgentReport)"/>
    public static string? FindWrong(GateAck ack)
    {
        var errors = new ValidationErrors();
        Check(ack, "$", errors);
        return Name(errors);
    }

    /// <summary>
    /// As it counts: a host whose clock stepped back between the two times has seen them all the same, no count is beyond all sums, and poison is not
    /// lost over a class or a source that only a newer agent knows.
    /// </summary>
    public static AgentReport Limit(AgentReport report) => report with
    {
        FirstAt = report.LastAt < report.FirstAt ? report.LastAt : report.FirstAt,
        LastAt = report.LastAt < report.FirstAt ? report.FirstAt : report.LastAt,
        Count = Math.Min(report.Count, Counts.Most),
        Class = report.Class is { } known && PageClasses.IsValid(known) ? known : null,
        Source = report.Source is { } source && PageSources.IsValid(source) ? source : null,
    };

    /// <summary>As much of what is in the way as can be shown: it is told for people to read.</summary>
    public static GateObstacle Cut(GateObstacle obstacle) => obstacle with
    {
        Code = Cut(obstacle.Code, MaximumCode) ?? "unknown",
        Detail = Cut(obstacle.Detail, MaximumDetail),
    };

    private static string? Name(ValidationErrors errors) =>
        errors.ToProblem()?.Errors is { } wrong ? string.Join(", ", wrong.Keys.Take(MostNamed)) : null;

    private static string? Cut(string? text, int most)
    {
        if (string.IsNullOrEmpty(text))
        {
            return null;
        }

        var length = text.Length <= most ? text.Length : char.IsHighSurrogate(text[most - 1]) ? most - 1 : most;
        return string.Concat(text.Take(length).Select(letter => char.IsControl(letter) ? ' ' : letter));
    }

    private static void Check(AgentReport report, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(report.Vm) && !(report.Vm is null && report.Kind == AgentReport.Fault))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (report.Count < 1)
        {
            errors.Add($"{path}.count", "1 or more.");
        }

        switch (report.Kind)
        {
            case AgentReport.Poison:
                CheckPoison(report, path, errors);
                break;
            case AgentReport.Hit:
                CheckHit(report, path, errors);
                break;
            case AgentReport.MarkerLost:
                CheckPlace(report, path, errors);
                break;
            case AgentReport.Fault:
                FaultValidator.Check(report, path, errors);
                break;
            case AgentReport.Seal or AgentReport.Lifted or AgentReport.Renounced:
                CheckGate(report, path, errors);
                break;
            case AgentReport.VmmGone:
                break;
            default:
                errors.Add($"{path}.kind", "poison, hit, fault, marker-lost, seal, lifted, renounced or vmm-gone.");
                break;
        }
    }

    private static void CheckPoison(AgentReport report, string path, ValidationErrors errors)
    {
        PageValidator.CheckPage(report.Frame, report.Shift ?? 0, path, errors);
        if (report.Origin is not null && !PoisonOrigins.IsValid(report.Origin))
        {
            errors.Add($"{path}.origin", "held, sealed or incoming.");
        }
    }

    private static void CheckGate(AgentReport report, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(report.Migration))
        {
            errors.Add($"{path}.migration", $"An id of the form {ResourceId.Pattern}.");
        }

        CheckEpoch(report, path, errors);
        if (report.TargetVmmInstance is { } instance)
        {
            CheckText(instance, MaximumInstance, $"{path}.targetVmmInstance", errors);
        }
    }

    private static void Check(GateAck ack, string path, ValidationErrors errors)
    {
        if (!ResourceId.IsValid(ack.Vm))
        {
            errors.Add($"{path}.vm", $"An id of the form {ResourceId.Pattern}.");
        }

        if (!ResourceId.IsValid(ack.Migration))
        {
            errors.Add($"{path}.migration", $"An id of the form {ResourceId.Pattern}.");
        }

        CheckText(ack.VmmInstance, MaximumInstance, $"{path}.vmmInstance", errors);
        if (!Digest().IsMatch(ack.Digest))
        {
            errors.Add($"{path}.digest", "64 lower-case hex digits.");
        }

        if (ack.Unservable.Count > MaximumUnservable)
        {
            errors.Add($"{path}.unservable", $"At most {MaximumUnservable}.");
            return;
        }

        for (var index = 0; index < ack.Unservable.Count; index++)
        {
            PageValidator.CheckPage(ack.Unservable[index].Frame, ack.Unservable[index].Shift, $"{path}.unservable[{index}]", errors);
        }
    }

    private static void CheckText(string text, int most, string path, ValidationErrors errors)
    {
        if (text.Length == 0 || text.Length > most || text.Any(char.IsControl))
        {
            errors.Add(path, $"1 to {most} characters, no control characters.");
        }
    }

    private static void CheckHit(AgentReport report, string path, ValidationErrors errors)
    {
        CheckPlace(report, path, errors);
        if (report.Access is null || !HitAccesses.IsValid(report.Access))
        {
            errors.Add($"{path}.access", "read, write, fetch or unknown.");
        }

        if (report.Evidence is null || !HitEvidences.IsValid(report.Evidence))
        {
            errors.Add($"{path}.evidence", "uffd, kvm-page-fault, user-page-fault, vmm or qmp.");
        }

        if (report.Outcome is null || !HitOutcomes.IsValid(report.Outcome))
        {
            errors.Add($"{path}.outcome", "mce-injected, vm-killed, blocked or unknown.");
        }
    }

    private static void CheckPlace(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.Frame is < 0 or > FrameMath.MaximumFrame)
        {
            errors.Add($"{path}.frame", "Not a guest frame number (4 KiB units, below 2^40).");
        }

        CheckEpoch(report, path, errors);
    }

    private static void CheckEpoch(AgentReport report, string path, ValidationErrors errors)
    {
        if (report.PlacementEpoch is null)
        {
            errors.Add($"{path}.placementEpoch", $"Needed for {report.Kind}.");
        }
    }

    [GeneratedRegex(@"\A[0-9a-f]{64}\z")]
    private static partial Regex Digest();
}
