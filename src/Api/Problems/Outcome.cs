using System.Diagnostics.CodeAnalysis;
using Fleet.Data.Writing;

namespace Fleet.Api.Problems;

/// <summary>What a command or query came to: a value, or a problem. A problem undoes what its command wrote.</summary>
public sealed class Outcome<T> : IRefusal
    where T : notnull
{
    private Outcome(T? value, Problem? problem)
    {
        Value = value;
        Problem = problem;
    }

    public T? Value { get; }

    public Problem? Problem { get; }

    [MemberNotNullWhen(true, nameof(Problem))]
    [MemberNotNullWhen(false, nameof(Value))]
    public bool IsRefused => Problem is not null;

    [SuppressMessage("Usage", "CA2225", Justification = "The conversions are the constructors.")]
    public static implicit operator Outcome<T>(T value) => new(value, null);

    [SuppressMessage("Usage", "CA2225", Justification = "The conversions are the constructors.")]
    public static implicit operator Outcome<T>(Problem problem) => new(default, problem);

    [SuppressMessage("Usage", "CA2225", Justification = "The conversions are the constructors.")]
    public static implicit operator Outcome<T>(ProblemType type) => new(default, new Problem(type));
}

/// <summary>The value of a command that has nothing to say.</summary>
public readonly record struct Done;
