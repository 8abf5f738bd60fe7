namespace Fleet.Data.Writing;

/// <summary>A command's result that may say no: then whatever the command did to its context is undone.</summary>
public interface IRefusal
{
    bool IsRefused { get; }
}
