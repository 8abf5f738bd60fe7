namespace Fleet.Data.Writing;

/// <summary>A batch was not committed: nothing of it is stored, the caller may try again.</summary>
public sealed class StoreWriteException : Exception
{
    public StoreWriteException()
    {
    }

    public StoreWriteException(string message)
        : base(message)
    {
    }

    public StoreWriteException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
