using System.Text.RegularExpressions;
using Fleet.Api.Problems;
using Fleet.Contracts.Agents;

namespace Fleet.Api.Agents;

/// <summary>
/// The shape of a request: only what tells where in the spool it belongs. What is wrong in one report must not keep those behind it from ever
/// arriving: it is <see cref="ReportContent"/>'s, and rejected alone.
/// </summary>
internal static partial class ReportValidator
{
    private const int MaximumReports = 1000;

    public static Problem? Validate(ReportsRequest request)
    {
        var errors = new ValidationErrors();
        if (!IsSpoolId(request.SpoolId))
        {
            errors.Add("$.spoolId", "32 lower-case hex digits.");
        }

        if (request.Reports.Count > MaximumReports)
        {
            errors.Add("$.reports", $"At most {MaximumReports}.");
            return errors.ToProblem();
        }

        for (var index = 0; index < request.Reports.Count; index++)
        {
            var path = $"$.reports[{index}]";
            if (request.Reports[index] is not { } report)
            {
                errors.Add(path, "Must not be null.");
                continue;
            }

            var expected = index == 0 ? Math.Max(1, report.Sequence) : request.Reports[0]?.Sequence + index;
            if (report.Sequence != expected)
            {
                errors.Add($"{path}.sequence", "From 1, ascending, without gaps.");
            }
        }

        CheckAll(request.Acks, "$.acks", errors);
        CheckAll(request.Obstacles, "$.obstacles", errors);
        return errors.ToProblem();
    }

    private static void CheckAll<T>(IReadOnlyList<T>? items, string path, ValidationErrors errors)
    {
        if (items?.Count > MaximumReports)
        {
            errors.Add(path, $"At most {MaximumReports}.");
            return;
        }

        for (var index = 0; index < items?.Count; index++)
        {
            if (items[index] is null)
            {
                errors.Add($"{path}[{index}]", "Must not be null.");
            }
        }
    }

    public static bool IsSpoolId(string? text) => text is not null && SpoolId().IsMatch(text);

    [GeneratedRegex(@"\A[0-9a-f]{32}\z")]
    private static partial Regex SpoolId();
}
