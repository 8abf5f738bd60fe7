using System.Diagnostics.CodeAnalysis;

namespace Fleet.Api.Problems;

/// <summary>Collects every error of a request, keyed by JSON path (<c>$.pages[3].shift</c>) or parameter name.</summary>
public sealed class ValidationErrors
{
    /// <summary>Enough to see what is wrong; a hostile body must not make a larger answer than itself.</summary>
    private const int MaximumPaths = 200;

    private readonly Dictionary<string, List<string>> _errors = [];
    private readonly List<ProblemType> _types = [];

    public bool Any => _errors.Count > 0;

    public void Add(string path, string message, ProblemType? type = null)
    {
        _types.Add(type ?? ProblemTypes.InvalidRequest);
        if (_errors.TryGetValue(path, out var messages))
        {
            messages.Add(message);
        }
        else if (_errors.Count < MaximumPaths)
        {
            _errors[path] = [message];
        }
    }

    /// <summary>Null when there are none. Errors that all are of one type make a problem of that type.</summary>
    public Problem? ToProblem()
    {
        if (!Any)
        {
            return null;
        }

        var type = _types.Distinct().Count() == 1 ? _types[0] : ProblemTypes.InvalidRequest;
        return new Problem(
            type,
            _types.Count == 1 ? "One error; see errors." : $"{_types.Count} errors; see errors.",
            _errors.ToDictionary(error => error.Key, error => error.Value.ToArray()));
    }

    public bool TryGetProblem([NotNullWhen(true)] out Problem? problem)
    {
        problem = ToProblem();
        return problem is not null;
    }
}
